//! The settings of libtorch that tch has no function for: autocast's precision, and determinism. The C++ side is
//! `shim.cpp`.

#![expect(unsafe_code, reason = "calls of C functions, and a variable of the environment")]

use std::ffi::c_int;

use tch::Device;

mod c {
    use std::ffi::c_int;

    unsafe extern "C" {
        pub(super) fn detect_autocast(cuda: c_int) -> c_int;
        pub(super) fn detect_set_autocast(cuda: c_int, precision: c_int);
        pub(super) fn detect_has_bf16(index: c_int) -> c_int;
        pub(super) fn detect_set_deterministic(on: c_int);
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
}
