// Runs the tests of one file:  test_bins [--filter TEXT] [--schedule NAME | --all-schedules] [--fail-fast] [--list]
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <cstdio>

#include "testing.h"

// Ends at the first report; fibres and the tests' child processes need the others.
extern "C" const char* __tsan_default_options() { return "halt_on_error=1:die_after_fork=0:report_signal_unsafe=0"; }
extern "C" const char* __asan_default_options() { return "detect_leaks=0"; }
extern "C" const char* __ubsan_default_options() { return "print_stacktrace=1"; }

namespace testing {

static uint64_t transcript;

std::vector<Test>& tests() {
  static std::vector<Test> all;
  return all;
}

void record_bytes(const void* data, size_t size) {
  for (size_t i = 0; i < size; ++i) {
    unsigned char byte;
    std::memcpy(&byte, static_cast<const char*>(data) + i, 1);
    transcript = (transcript ^ byte) * 1099511628211u;
  }
}

// A new process, not only a fork: the thread sanitizer does not watch a fork of many threads. It gets to know the
// function by its distance from another.
Outcome run_apart(void (*f)()) {
  const std::string distance = std::to_string(intptr_t(f) - intptr_t(&run_apart)),
                    schedule = std::to_string(int(cuda_model::settings.schedule)),
                    early = std::to_string(cuda_model::settings.copies_land_early +
                                           2 * cuda_model::settings.products_read_early);
  int ends[2];
  if (pipe(ends)) throw Failure("no pipe");
  const pid_t child = fork();
  if (child == 0) {
    dup2(ends[1], STDERR_FILENO);
    close(ends[0]);
    execl("/proc/self/exe", "apart", "--apart", distance.c_str(), schedule.c_str(), early.c_str(), nullptr);
    _exit(0);
  }
  close(ends[1]);
  Outcome outcome{};
  char buffer[4096];
  for (ssize_t n; (n = read(ends[0], buffer, sizeof buffer)) > 0;) outcome.said.append(buffer, size_t(n));
  close(ends[0]);
  int status = 0;
  waitpid(child, &status, 0);
  outcome.died = !(WIFEXITED(status) && WEXITSTATUS(status) == 0);
  return outcome;
}

static int run_here(const char* distance, const char* schedule, const char* early) {
  cuda_model::settings.schedule = cuda_model::Schedule(std::stoi(schedule));
  cuda_model::settings.copies_land_early = std::stoi(early) % 2;
  cuda_model::settings.products_read_early = std::stoi(early) / 2;
  reinterpret_cast<void (*)()>(intptr_t(&run_apart) + std::stoll(distance))();
  return 0;
}

}  // namespace testing

using cuda_model::Schedule;

struct NamedSchedule {
  const char* name;
  Schedule schedule;
};
static constexpr NamedSchedule kSchedules[] = {{"forward", Schedule::kForward},
                                               {"reverse", Schedule::kReverse},
                                               {"shuffle", Schedule::kShuffle},
                                               {"greedy", Schedule::kGreedy}};

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
static constexpr bool kSanitized = true;
#else
static constexpr bool kSanitized = false;
#endif

// Whether a test is run so. Plainly, under every schedule; where copies are asynchronous, under two of them with copies
// landing early too. The sanitizers, which take their time, see what is wrong with an access whenever it comes: two
// ways do, as far from each other as they can be, but with --all-schedules.
static bool wanted(Schedule schedule, bool early, bool all) {
  const bool copies = cuda_model::counters.async_copies != 0;
  if (kSanitized && !all)
    return early ? schedule == Schedule::kReverse
                 : schedule == Schedule::kForward || (!copies && schedule == Schedule::kGreedy);
  return !early || schedule == Schedule::kReverse || schedule == Schedule::kGreedy;
}

// Of products, so that with both ways of copies there are all four.
static bool reads_early(Schedule schedule) { return schedule == Schedule::kReverse || schedule == Schedule::kShuffle; }

static bool run(const testing::Test& test, const std::string& only, bool all) {
  uint64_t first = 0;
  bool any = false;
  for (const bool early : {false, true})
    for (const NamedSchedule& s : kSchedules) {
      if (early && cuda_model::counters.async_copies == 0) continue;
      if (only.empty() ? !wanted(s.schedule, early, all) : only != s.name) continue;
      cuda_model::settings = {};
      cuda_model::settings.schedule = s.schedule;
      cuda_model::settings.copies_land_early = early;
      cuda_model::settings.products_read_early = reads_early(s.schedule);
      testing::transcript = 14695981039346656037u;
      try {
        test.run();
        if (any && testing::transcript != first) throw testing::Failure("other bits than under the first schedule");
      } catch (const std::exception& failure) {
        std::printf("FAILED under schedule %s, copies landing %s\n    %s\n", s.name, early ? "early" : "late",
                    failure.what());
        return false;
      }
      if (!any) first = testing::transcript;
      any = true;
    }
  return true;
}

int main(int argc, char** argv) {
  if (argc == 5 && std::string(argv[1]) == "--apart") return testing::run_here(argv[2], argv[3], argv[4]);
  std::string filter, schedule;
  bool list = false, fail_fast = false, all = false;
  for (int i = 1; i < argc; ++i) {
    const std::string argument = argv[i];
    if (argument == "--filter" && i + 1 < argc) {
      filter = argv[++i];
    } else if (argument == "--schedule" && i + 1 < argc) {
      schedule = argv[++i];
    } else if (argument == "--all-schedules") {
      all = true;
    } else if (argument == "--fail-fast") {
      fail_fast = true;
    } else if (argument == "--list") {
      list = true;
    } else {
      std::fprintf(
          stderr,
          "usage: %s [--filter TEXT] [--schedule forward|reverse|shuffle|greedy | --all-schedules] [--fail-fast] "
          "[--list]\n",
          argv[0]);
      return 2;
    }
  }
  int n_run = 0, n_failed = 0;
  const auto now = [] { return std::chrono::steady_clock::now(); };
  const auto seconds = [](auto from, auto to) { return std::chrono::duration<double>(to - from).count(); };
  const auto begin = now();
  for (const testing::Test& test : testing::tests()) {
    if (std::string(test.name).find(filter) == std::string::npos) continue;
    std::printf("%s%s", test.name, list ? "\n" : " ... ");
    std::fflush(stdout);
    if (list) continue;
    cuda_model::counters = {};
    const auto start = now();
    const bool passed = run(test, schedule, all);
    if (passed) std::printf("ok, %.2f s\n", seconds(start, now()));
    std::fflush(stdout);
    ++n_run;
    n_failed += !passed;
    if (fail_fast && !passed) break;
  }
  if (list) return 0;
  const std::string program = argv[0];
  std::printf("%s: %d tests, %d failed, %.1f s\n", program.substr(program.rfind('/') + 1).c_str(), n_run, n_failed,
              seconds(begin, now()));
  return n_failed != 0;
}
