// For the tests of what the model notices: which sanitizer is built in, and the end of a process.
#pragma once
#include "testing.h"

#if defined(__SANITIZE_THREAD__)
inline constexpr bool kThread = true, kAddress = false;
#elif defined(__SANITIZE_ADDRESS__)
inline constexpr bool kThread = false, kAddress = true;
#else
inline constexpr bool kThread = false, kAddress = false;
#endif

namespace testing {

// Runs f in a process of its own and asks for its end with these words.
inline void expect_end(void (*f)(), const char* words) {
  const Outcome outcome = run_apart(f);
  CHECK(outcome.died);
  if (outcome.said.find(words) == std::string::npos)
    fail(__FILE__, __LINE__, "expected '", words, "' in: ", outcome.said);
}

}  // namespace testing
