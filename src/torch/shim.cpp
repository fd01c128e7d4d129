// What tch does not pass on of libtorch: the precision that operations choose by themselves (autocast), determinism,
// pinned memory, which operations run, and operations with a backward pass of one's own. shim.rs declares and explains these functions; none of them throws,
// so that no C++ exception can reach Rust.
#include <ATen/Context.h>
#include <ATen/autocast_mode.h>
#include <ATen/detail/CUDAHooksInterface.h>
#include <ATen/record_function.h>
#include <c10/core/DeviceGuard.h>
#include <torch/csrc/autograd/custom_function.h>

namespace {
c10::DeviceType type_of(int cuda) { return cuda ? c10::kCUDA : c10::kCPU; }

// Leaves in `values` the sum over the processes; gives 0 if it could.
using Sum = int (*)(const void *group, double *values, int64_t count);

at::Tensor summed(const at::Tensor &xs, Sum sum, const void *group) {
  // A copy: the numbers are changed in place.
  auto sums = xs.detach().to(at::kCPU, at::kDouble, /*non_blocking=*/false, /*copy=*/true).contiguous();
  TORCH_CHECK(sum(group, sums.data_ptr<double>(), sums.numel()) == 0, "the processes could not sum");
  return sums.to(xs.device());
}

// The sum over all processes. A loss is the sum of those of all, so that the gradient of a sum is, too.
struct Summed : torch::autograd::Function<Summed> {
  static at::Tensor forward(torch::autograd::AutogradContext *context, const at::Tensor &xs, Sum sum, const void *group) {
    context->saved_data["sum"] = reinterpret_cast<int64_t>(sum);
    context->saved_data["group"] = reinterpret_cast<int64_t>(group);
    return summed(xs, sum, group);
  }

  static torch::autograd::variable_list backward(torch::autograd::AutogradContext *context, torch::autograd::variable_list gradients) {
    const auto sum = reinterpret_cast<Sum>(context->saved_data["sum"].toInt());
    const auto group = reinterpret_cast<const void *>(context->saved_data["group"].toInt());
    return {summed(gradients[0], sum, group), at::Tensor(), at::Tensor()};
  }
};

// Who is told the names of the operations that this thread runs.
using Name = void (*)(void *to, const char *name);
thread_local Name told = nullptr;
thread_local void *told_to = nullptr;

std::unique_ptr<at::ObserverContext> tell(const at::RecordFunction &operation) {
  if (told != nullptr) told(told_to, operation.name());
  return nullptr;
}
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

// A copy in memory that a GPU reads by itself, which the caller owns; null where there is none.
void *detect_pinned(const void *xs) {
  try {
    return new at::Tensor(static_cast<const at::Tensor *>(xs)->pin_memory());
  } catch (...) {
    return nullptr;
  }
}

// Calls `name` with the name of each operation that this thread runs, until `detect_observed` is called with what this
// gives.
uint64_t detect_observe(Name name, void *to) {
  told = name;
  told_to = to;
  return at::addThreadLocalCallback(at::RecordFunctionCallback(tell).scopes({at::RecordScope::FUNCTION}));
}

void detect_observed(uint64_t handle) {
  at::removeCallback(handle);
  told = nullptr;
}

// A tensor that the caller owns; null where it could not be made.
void *detect_summed(const void *xs, Sum sum, const void *group) {
  try {
    return new at::Tensor(Summed::apply(*static_cast<const at::Tensor *>(xs), sum, group));
  } catch (...) {
    return nullptr;
  }
}
}
