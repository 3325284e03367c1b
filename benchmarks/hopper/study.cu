// What the tensor cores give with Hopper's own instructions, wgmma and tensor copies: the product under
// similarity_confidence alone, and with its epilogue. A study for the op to be written from; `python -m
// benchmarks.hopper` builds and runs it on a GPU of compute capability 9.0.
//
// A million rows of 512 columns in bf16, 1000 classes. The configurations:
//
//                           classes  slots of  blocks in     rows            sets of
//   name                    a tile   the ring  a cluster  resident  weights  accumulators
//   product_pair               256      3          2        yes     none          1
//   product_single             256      3          1        yes     none          1
//   product_two_sets           128      6          2        yes     none          2
//   two_weights_single         128      6          1        yes     two           2
//   two_weights_pair           128      6          2        yes     two           2
//   one_weight_pair            128      6          2        yes     one           2
//   two_weights_turns          128      6          2        yes     two           1, warpgroups in turns
//   product_pair_streamed      256      4          2        no      none          1
//   product_single_streamed    256      4          1        no      none          1
//
// No weights: the maximum of a row's products is found, nothing else. pair: two blocks share their chunks of classes.
// Two sets: the epilogue of a tile runs between the products of the next; one set: warpgroups multiply while others
// are busy with theirs, in turns if the second must stay four chunks behind the first.
//
// Where it departs from the op: lengths of rows are read, not found on the way; at most two weights, of which the first
// is 1; NaN and infinity are not looked after; bf16, 512 columns and 1000 classes only.
//
// A kernel that hangs ends itself after seconds, or is ended: each run is a child process, and another goes on with the
// next configuration.
#include <sys/mman.h>
#include <sys/wait.h>

#include <atomic>
#include <chrono>
#include <csignal>
#include <new>
#include <utility>

#include "measure.cuh"

namespace pyfastcal::hopper {

// A child's exit codes; 3: a call or a kernel failed.
constexpr int kDone = 0, kNoGpu = 2;
constexpr double kLimit = 35, kSetUpLimit = 14, kMeasureLimit = 6;  // seconds

// Shared with the child.
struct Progress {
  std::atomic<int> index, good;
  std::atomic<bool> ready;
  std::atomic<double> since;
};

double now() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }

template <int... kIndex>
const void* find_kernel(int index, std::integer_sequence<int, kIndex...>) {
  using Address = const void* (*)();
  static constexpr Address kAddresses[] = {kernel_address<kIndex>...};
  return kAddresses[index]();
}

[[noreturn]] void run_child(Progress& progress, int first) {
  int devices = 0;
  cudaDeviceProp device{};
  if (cudaGetDeviceCount(&devices) == cudaSuccess && devices) PYFASTCAL_CHECK(cudaGetDeviceProperties(&device, 0));
  if (device.major != 9 || device.minor != 0) {
    fprintf(stderr, "the Hopper study needs a GPU of compute capability 9.0: found %s\n",
            devices ? device.name : "none");
    _exit(kNoGpu);
  }
  if (first == 0)
    printf("%s, %d multiprocessors; %d x %d, %d classes\n", device.name, device.multiProcessorCount, kRows, kDepth,
           kClasses);
  int* report = nullptr;  // which the host can read even when a kernel was ended
  PYFASTCAL_CHECK(cudaHostAlloc(reinterpret_cast<void**>(&report), 64, cudaHostAllocMapped));
  const Data data;
  progress.since = now();
  progress.ready = true;
  for (int i = first; i < kConfigurationCount; ++i) {
    progress.since = now();
    progress.index = i;
    printf("%-24s", kConfigurations[i].name);
    fflush(stdout);
    const void* const kernel = find_kernel(i, std::make_integer_sequence<int, kConfigurationCount>());
    progress.good += measure(kConfigurations[i], kernel, data, device.multiProcessorCount, report);
  }
  _exit(kDone);
}

// The child's exit code, or -1 where it was killed or crashed.
int watch_child(pid_t child, const Progress& progress, double start) {
  int status = 0;
  bool killed = false;
  while (waitpid(child, &status, WNOHANG) != child) {
    const double time = now(), waited = time - progress.since;
    if (!killed && (waited > (progress.ready ? kMeasureLimit : kSetUpLimit) || time - start > kLimit)) {
      printf("KILLED after %.1f s\n", waited);
      kill(child, SIGKILL);
      killed = true;
    }
    if (time - start > kLimit + 1) {  // what hangs in the driver cannot be killed
      printf("time is up\n");
      exit(1);
    }
    usleep(5000);
  }
  if (!killed && WIFSIGNALED(status)) printf("CRASHED: signal %d\n", WTERMSIG(status));
  return !killed && WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

int run() {
  void* const memory = mmap(nullptr, sizeof(Progress), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) return perror("mmap"), 1;
  Progress& progress = *new (memory) Progress{};
  const double start = now();
  int next = 0, failed_set_ups = 0;
  while (next < kConfigurationCount && now() - start < kLimit - 2 && failed_set_ups < 2) {
    progress.index = next;
    progress.ready = false;
    progress.since = now();
    fflush(stdout);
    const pid_t child = fork();
    if (child < 0) return perror("fork"), 1;
    if (child == 0) run_child(progress, next);
    const int code = watch_child(child, progress, start);
    if (code == kDone) break;
    if (code == kNoGpu) return 2;
    if (progress.ready)
      next = progress.index + 1;
    else
      ++failed_set_ups;
  }
  printf("%d of %d OK, %.1f s\n", int(progress.good), kConfigurationCount, now() - start);
  return progress.good == kConfigurationCount ? 0 : 1;
}

}  // namespace pyfastcal::hopper

int main() {
  setvbuf(stdout, nullptr, _IOLBF, 1 << 12);
  return pyfastcal::hopper::run();
}
