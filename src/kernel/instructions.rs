//! Instruction sets: which of them this processor has, and code that is compiled for one.

use crate::packed::Packing;
#[cfg(target_arch = "x86_64")]
use crate::vector::{Avx2, Avx512, Avx512Bf16};
use crate::vector::{Kernel, Portable, Vector};

/// The vectors that a program is compiled for. There are only those that this processor has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Instructions(Set);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Set {
    /// Whatever the compiler makes of plain loops.
    Portable,
    /// AVX2 and FMA.
    #[cfg(target_arch = "x86_64")]
    Avx2,
    /// AVX-512F.
    #[cfg(target_arch = "x86_64")]
    Avx512,
    /// Plain loops, products in bfloat16: what other sets compute, to try it out.
    PortableBf16,
    /// AVX-512F, BW, VL and BF16, products in bfloat16.
    #[cfg(target_arch = "x86_64")]
    Avx512Bf16,
}

impl Instructions {
    /// The widest of this processor in which all is float32; `DETECT_INSTRUCTIONS=portable|avx2|avx512` asks for less.
    pub fn best() -> Self {
        let asked = std::env::var("DETECT_INSTRUCTIONS").unwrap_or_default();
        let all = Self::available();
        let named = all.iter().find(|set| set.name() == asked);
        *named.unwrap_or(all.last().expect("plain loops run everywhere"))
    }

    /// What `DETECT_INSTRUCTIONS` asks for where this program or this processor has nothing of that name.
    pub fn not_there() -> Option<String> {
        let asked = std::env::var("DETECT_INSTRUCTIONS").ok().filter(|asked| !asked.is_empty())?;
        Self::available().iter().all(|set| set.name() != asked).then_some(asked)
    }

    /// Those of this processor whose products read bfloat16, where it has some; `DETECT_INSTRUCTIONS=portable` asks for
    /// plain loops, which are slow; the other names ask for sets without such products.
    pub fn best_bf16() -> Option<Self> {
        match std::env::var("DETECT_INSTRUCTIONS").as_deref() {
            Ok("portable") => return Some(Self(Set::PortableBf16)),
            Ok("avx2" | "avx512") => return None,
            _ => {}
        }
        let widest = Self::available_bf16().pop().expect("plain loops run everywhere");
        (widest.0 != Set::PortableBf16).then_some(widest)
    }

    /// All that this processor has in which all is float32, the widest last.
    pub fn available() -> Vec<Self> {
        Self::all().filter(|set| set.packing().inputs == 1).collect()
    }

    /// All that this processor has whose products read bfloat16, the widest last.
    pub fn available_bf16() -> Vec<Self> {
        Self::all().filter(|set| set.packing().inputs == 2).collect()
    }

    fn all() -> impl Iterator<Item = Self> {
        let everywhere = [Set::Portable, Set::PortableBf16];
        everywhere.into_iter().chain(Set::of_the_processor()).map(Self)
    }

    /// Plain loops, all in float32.
    pub const fn portable() -> Self {
        Self(Set::Portable)
    }

    /// Plain loops whose products read bfloat16.
    pub const fn portable_bf16() -> Self {
        Self(Set::PortableBf16)
    }

    /// What it is called.
    pub fn name(self) -> &'static str {
        match self.0 {
            Set::Portable => "portable",
            #[cfg(target_arch = "x86_64")]
            Set::Avx2 => "avx2",
            #[cfg(target_arch = "x86_64")]
            Set::Avx512 => "avx512",
            Set::PortableBf16 => "portable-bf16",
            #[cfg(target_arch = "x86_64")]
            Set::Avx512Bf16 => "avx512-bf16",
        }
    }

    /// The same for people.
    pub fn title(self) -> &'static str {
        match self.0 {
            Set::Portable => "portable code",
            #[cfg(target_arch = "x86_64")]
            Set::Avx2 => "AVX2 and FMA",
            #[cfg(target_arch = "x86_64")]
            Set::Avx512 => "AVX-512",
            Set::PortableBf16 => "portable code, products in bfloat16",
            #[cfg(target_arch = "x86_64")]
            Set::Avx512Bf16 => "AVX-512, products in bfloat16",
        }
    }

    /// How weights are packed for them.
    pub fn packing(self) -> Packing {
        fn of<V: Vector>() -> Packing {
            V::PACKING
        }
        match self.0 {
            Set::Portable => of::<Portable<1>>(),
            #[cfg(target_arch = "x86_64")]
            Set::Avx2 => of::<Avx2>(),
            #[cfg(target_arch = "x86_64")]
            Set::Avx512 => of::<Avx512>(),
            Set::PortableBf16 => of::<Portable<2>>(),
            #[cfg(target_arch = "x86_64")]
            Set::Avx512Bf16 => of::<Avx512Bf16>(),
        }
    }

    /// Floats of a vector.
    pub fn lanes(self) -> usize {
        self.packing().lanes
    }

    /// Runs `kernel` compiled for these instructions.
    ///
    /// # Safety
    /// What the kernel asks for, the instructions apart.
    pub(crate) unsafe fn run(self, kernel: impl Kernel) {
        // SAFETY: there are only those that the processor has.
        unsafe {
            match self.0 {
                Set::Portable => Portable::<1>::call(kernel),
                #[cfg(target_arch = "x86_64")]
                Set::Avx2 => Avx2::call(kernel),
                #[cfg(target_arch = "x86_64")]
                Set::Avx512 => Avx512::call(kernel),
                Set::PortableBf16 => Portable::<2>::call(kernel),
                #[cfg(target_arch = "x86_64")]
                Set::Avx512Bf16 => Avx512Bf16::call(kernel),
            }
        }
    }
}

impl Set {
    /// Those of this processor that are not everywhere, the widest last.
    #[cfg(target_arch = "x86_64")]
    fn of_the_processor() -> impl Iterator<Item = Self> {
        let avx2 = is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma");
        let avx512 =
            avx2 && is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512vl");
        let bf16 = avx512
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512bf16");
        let sets = [(Self::Avx2, avx2), (Self::Avx512, avx512), (Self::Avx512Bf16, bf16)];
        sets.into_iter().filter_map(|(set, has)| has.then_some(set))
    }

    #[cfg(not(target_arch = "x86_64"))]
    fn of_the_processor() -> impl Iterator<Item = Self> {
        std::iter::empty()
    }
}
