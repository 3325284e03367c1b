from scripts.cuda.mutations import Mutation

TESTS = ["test_launch"]
FILE = "runtime/launch.cuh"
OF_A_LAUNCH = """\
    if (const auto error = raise_shared_limit<kKernel>()) return error;
  return prim::launch"""
OF_A_COUNT = """\
  if (const auto error = raise_shared_limit<kKernel>()) return error;
  if (const auto error ="""
TO_WHAT_IS_NEEDED = """\
if (const auto error = cudaFuncSetAttribute(reinterpret_cast<const void*>(kKernel),
                                            cudaFuncAttributeMaxDynamicSharedMemorySize, int(shared_bytes)))
    return error;
"""
LIMIT = "limits.shared_bytes - int(attributes.sharedSizeBytes)"
MUTATIONS = [
    Mutation(
        "a launch sets the limit to what it needs itself",
        FILE,
        OF_A_LAUNCH,
        TO_WHAT_IS_NEEDED + "  return prim::launch",
        tests=("test_similarity", "test_launch"),
    ),
    Mutation(
        "counting blocks sets the limit to what one launch needs",
        FILE,
        OF_A_COUNT,
        TO_WHAT_IS_NEEDED + "  if (const auto error =",
        tests=("test_bins", "test_launch"),
    ),
    Mutation("the limit is never raised", FILE, "shared_bytes > kUnasked", "false"),
    Mutation("counting blocks does not raise the limit", FILE, OF_A_COUNT, "  if (const auto error ="),
    Mutation("the limit is raised on one device only", FILE, "uint64_t(1) << device : 0", "uint64_t(1) : 0"),
    Mutation(
        "devices share the mark of a raised limit",
        FILE,
        "device < 64 ? uint64_t(1) << device : 0",
        "uint64_t(1) << device % 64",
    ),
    Mutation(
        "one kernel's raised limit counts as all kernels'",
        FILE,
        """\
template <auto kKernel>
cudaError_t raise_shared_limit() {
  static std::atomic<uint64_t> raised{0};  // bit d: on device d""",
        """\
inline std::atomic<uint64_t> raised{0};
template <auto kKernel>
cudaError_t raise_shared_limit() {""",
    ),
    Mutation("the limit is set anew by every launch", FILE, "raised.fetch_or(bit, std::memory_order_release);", ""),
    Mutation("the limit leaves no room for static arrays", FILE, LIMIT, "limits.shared_bytes"),
    Mutation("the limit is a tenth below the device's", FILE, LIMIT, LIMIT + " - limits.shared_bytes / 10"),
    Mutation("what a launch may have unasked leaves no room for static arrays", FILE, "kUnasked = 32", "kUnasked = 48"),
    Mutation("a capture is in the way of the first launch", FILE, "  const OutsideCapture outside;\n", ""),
    Mutation(
        "a thread's capture mode is not given back",
        FILE,
        "~OutsideCapture() { cudaThread",
        "~OutsideCapture() { if (false) cudaThread",
    ),
    Mutation(
        "blocks are counted as if they took no dynamic shared memory",
        FILE,
        "kKernel, threads, shared_bytes)",
        "kKernel, threads, 0)",
    ),
]
