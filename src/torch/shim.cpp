// What tch does not pass on of libtorch's settings: the precision that operations choose by themselves
// (autocast), and determinism. shim.rs declares and explains these functions; none of them throws, so that no
// C++ exception can reach Rust.
#include <ATen/Context.h>
#include <ATen/autocast_mode.h>
#include <ATen/detail/CUDAHooksInterface.h>
#include <c10/core/DeviceGuard.h>

namespace {
c10::DeviceType type_of(int cuda) { return cuda ? c10::kCUDA : c10::kCPU; }
} // namespace

extern "C" {

// 0 is off, 1 bfloat16, 2 float16.
int detect_autocast(int cuda) {
  const auto type = type_of(cuda);
  if (!at::autocast::is_autocast_enabled(type)) return 0;
  return at::autocast::get_autocast_dtype(type) == at::kHalf ? 2 : 1;
}

void detect_set_autocast(int cuda, int precision) {
  const auto type = type_of(cuda);
  // Every weight is read once a pass, so that a cache of casts would save nothing; and one that was made in a pass
  // without gradients would cut the next pass off from its weights.
  at::autocast::set_autocast_cache_enabled(false);
  if (precision != 0) at::autocast::set_autocast_dtype(type, precision == 2 ? at::kHalf : at::kBFloat16);
  at::autocast::set_autocast_enabled(type, precision != 0);
}

// Whether the GPU computes in bfloat16 (Ampere and later).
int detect_has_bf16(int index) {
  try {
    const c10::DeviceGuard guard(c10::Device(c10::kCUDA, static_cast<c10::DeviceIndex>(index)));
    return at::detail::getCUDAHooks().supportsBFloat16ConvolutionWithCuDNNv8() ? 1 : 0;
  } catch (...) {
    return 0;
  }
}

void detect_set_deterministic(int on) {
  auto& context = at::globalContext();
  context.setDeterministicAlgorithms(on != 0, /*warn_only=*/false);
  // Filling what is about to be overwritten costs time and changes nothing here.
  context.setDeterministicFillUninitializedMemory(false);
  context.setDeterministicCuDNN(on != 0);
  if (on != 0) context.setBenchmarkCuDNN(false);
}
}
