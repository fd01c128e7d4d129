//! What tch has no function for: autocast's precision, determinism, pinned memory, which operations run, and an operation
//! with a backward pass of its own.
//! The C++ side is `shim.cpp`.

#![expect(
    unsafe_code,
    reason = "calls of C functions, what they call back, and a variable of the environment"
)]

use std::ffi::{c_int, c_void};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};

use tch::{Device, Tensor};

use crate::ranks::{Group, Ranks};

mod c {
    use std::ffi::{c_int, c_void};

    pub(super) type Sum = extern "C" fn(*const c_void, *mut f64, i64) -> c_int;

    unsafe extern "C" {
        pub(super) fn detect_autocast(cuda: c_int) -> c_int;
        pub(super) fn detect_set_autocast(cuda: c_int, precision: c_int);
        pub(super) fn detect_has_bf16(index: c_int) -> c_int;
        pub(super) fn detect_set_deterministic(on: c_int);
        pub(super) fn detect_pinned(xs: *const c_void) -> *mut c_void;
        pub(super) fn detect_summed(
            xs: *const c_void,
            sum: Sum,
            group: *const c_void,
        ) -> *mut c_void;
    }

    #[cfg(test)]
    unsafe extern "C" {
        pub(super) fn detect_observe(
            name: extern "C" fn(*mut c_void, *const std::ffi::c_char),
            to: *mut c_void,
        ) -> u64;
        pub(super) fn detect_observed(handle: u64);
    }
}

fn cuda(device: Device) -> c_int {
    c_int::from(device.is_cuda())
}

/// What autocast does in this thread on the kind of `device`: 0 nothing, 1 bfloat16, 2 float16.
pub(crate) fn autocast(device: Device) -> i32 {
    // SAFETY: it takes and gives a number, and reads a setting of this thread.
    unsafe { c::detect_autocast(cuda(device)) }
}

/// Sets what [`autocast`] gives.
pub(crate) fn set_autocast(device: Device, precision: i32) {
    // SAFETY: it takes two numbers, and writes settings of this thread.
    unsafe { c::detect_set_autocast(cuda(device), precision) }
}

/// Whether the GPU computes in bfloat16; false for a CPU.
pub(crate) fn has_bf16(device: Device) -> bool {
    let Device::Cuda(index) = device else { return false };
    // SAFETY: it takes a number, which libtorch checks, and catches what is thrown.
    unsafe { c::detect_has_bf16(index as c_int) != 0 }
}

static DETERMINISTIC: AtomicBool = AtomicBool::new(false);

/// Has libtorch take kernels alone that give the same bits each time, and refuse what has none. To be called
/// before the first use of a GPU.
pub fn set_deterministic() {
    const WORKSPACE: &str = "CUBLAS_WORKSPACE_CONFIG";
    if std::env::var_os(WORKSPACE).is_none() {
        // cuBLAS reads it when it starts, and libtorch's deterministic mode asks for it.
        // SAFETY: the program calls this first of all, with no thread beside it that could read the environment.
        unsafe { std::env::set_var(WORKSPACE, ":4096:8") };
    }
    // SAFETY: it takes a number and writes settings of the process.
    unsafe { c::detect_set_deterministic(1) }
    DETERMINISTIC.store(true, Ordering::Relaxed);
}

/// Whether [`set_deterministic`] was called.
pub fn is_deterministic() -> bool {
    DETERMINISTIC.load(Ordering::Relaxed)
}

/// A copy of a tensor on the CPU in memory from which a GPU reads by itself, while the program goes on; none where there
/// is no such memory.
pub(crate) fn pinned(xs: &Tensor) -> Option<Tensor> {
    // SAFETY: `xs` is a tensor of libtorch's, which the function reads and keeps nothing of. What is thrown is caught.
    let made = unsafe { c::detect_pinned(xs.as_ptr().cast()) };
    // SAFETY: a tensor that the function has made for whoever calls it.
    (!made.is_null()).then(|| unsafe { Tensor::from_ptr(made.cast()) })
}

/// The names of libtorch's operations that `f` runs in this thread, such as `aten::add`.
#[cfg(test)]
pub(crate) fn operations_of<T>(f: impl FnOnce() -> T) -> (T, Vec<String>) {
    use std::ffi::{CStr, c_char};

    extern "C" fn name(to: *mut c_void, name: *const c_char) {
        // SAFETY: the list that `operations_of` has passed on, which nobody else reads meanwhile, and a string of
        // libtorch's that ends in 0.
        let (names, name) = unsafe { (&mut *to.cast::<Vec<String>>(), CStr::from_ptr(name)) };
        names.push(name.to_string_lossy().into_owned());
    }
    let mut names: Vec<String> = Vec::new();
    let to = std::ptr::from_mut(&mut names).cast();
    // SAFETY: `names` outlives what is called until `detect_observed`; a panic of `f` waits for that.
    let (handle, ran) = unsafe { (c::detect_observe(name, to), catch_unwind(AssertUnwindSafe(f))) };
    // SAFETY: a handle that was just made.
    unsafe { c::detect_observed(handle) };
    (ran.unwrap_or_else(|panic| std::panic::resume_unwind(panic)), names)
}

/// The sum over all processes of a tensor of each, in float64. Its backward pass sums the gradients over them as well,
/// so that all must run it, in the same order.
pub(crate) fn summed(xs: &Tensor, group: Group) -> Tensor {
    let group: *const &'static dyn Ranks = group.0;
    // SAFETY: `xs` is a tensor of libtorch's, which the function reads and keeps nothing of; `sum` is called with
    // `group`, which stays as long as the program. What is thrown is caught.
    let made = unsafe { c::detect_summed(xs.as_ptr().cast(), sum, group.cast()) };
    assert!(!made.is_null(), "the processes can sum {xs:?}");
    // SAFETY: a tensor that the function has made for whoever calls it.
    unsafe { Tensor::from_ptr(made.cast()) }
}

/// What [`summed`] calls, also from the backward pass. No panic may pass through C++.
extern "C" fn sum(group: *const c_void, values: *mut f64, count: i64) -> c_int {
    // SAFETY: the pointer that `summed` has passed on.
    let group: &dyn Ranks = unsafe { *group.cast::<&'static dyn Ranks>() };
    // SAFETY: the numbers of a float64 tensor on the CPU that nobody else has, of which there is at least one.
    let values = unsafe { std::slice::from_raw_parts_mut(values, count as usize) };
    let summed = catch_unwind(AssertUnwindSafe(|| group.sum_f64(values)));
    c_int::from(summed.is_err())
}
