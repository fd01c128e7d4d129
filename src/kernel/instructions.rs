//! Instruction sets: which of them this processor has, and code that is compiled for one.

#[cfg(target_arch = "x86_64")]
use crate::vector::{Avx2, Avx512};
use crate::vector::{Kernel, Portable, Vector};

/// The vectors that a program is compiled for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Instructions {
    /// Whatever the compiler makes of plain loops.
    Portable,
    /// AVX2 and FMA.
    #[cfg(target_arch = "x86_64")]
    Avx2,
    /// AVX-512F.
    #[cfg(target_arch = "x86_64")]
    Avx512,
}

impl Instructions {
    /// The widest that this processor has; `DETECT_INSTRUCTIONS=portable|avx2|avx512` asks for less.
    pub fn best() -> Self {
        let asked = std::env::var("DETECT_INSTRUCTIONS").unwrap_or_default();
        let all = Self::available();
        let named = all.iter().find(|set| set.name() == asked);
        *named.unwrap_or(all.last().expect("plain loops run everywhere"))
    }

    /// All that this processor has, the widest last.
    pub fn available() -> Vec<Self> {
        #[allow(unused_mut, reason = "other processors have no more")]
        let mut sets = vec![Self::Portable];
        #[cfg(target_arch = "x86_64")]
        {
            if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
                sets.push(Self::Avx2);
                if is_x86_feature_detected!("avx512f") {
                    sets.push(Self::Avx512);
                }
            }
        }
        sets
    }

    /// What it is called.
    pub fn name(self) -> &'static str {
        match self {
            Self::Portable => "portable",
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => "avx2",
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 => "avx512",
        }
    }

    /// The same for people.
    pub fn title(self) -> &'static str {
        match self {
            Self::Portable => "portable code",
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => "AVX2 and FMA",
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 => "AVX-512",
        }
    }

    /// Floats of a vector, and vectors side by side in a product: how weights are packed.
    pub fn shape(self) -> [usize; 2] {
        fn of<V: Vector>() -> [usize; 2] {
            [V::LANES, V::COLUMNS]
        }
        match self {
            Self::Portable => of::<Portable>(),
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => of::<Avx2>(),
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 => of::<Avx512>(),
        }
    }

    /// Floats of a vector.
    pub fn lanes(self) -> usize {
        self.shape()[0]
    }

    /// Runs `kernel` compiled for these instructions.
    ///
    /// # Safety
    /// What the kernel asks for, the instructions apart.
    pub(crate) unsafe fn run(self, kernel: impl Kernel) {
        // SAFETY: `available` makes only those that the processor has.
        unsafe {
            match self {
                Self::Portable => Portable::call(kernel),
                #[cfg(target_arch = "x86_64")]
                Self::Avx2 => Avx2::call(kernel),
                #[cfg(target_arch = "x86_64")]
                Self::Avx512 => Avx512::call(kernel),
            }
        }
    }
}
