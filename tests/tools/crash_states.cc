// crash_states [--random N] [--all-up-to N] [--seed N]: the long form of checkpoint/crash_states_test.cc. One
// line for each kind of save, then RESULT; exit code 1 where a state was violated or a bad twin was not
// flagged.
#include "checkpoint/crash_states.h"

#include <fmt/format.h>

#include <cstdio>

#include <CLI/CLI.hpp>

using namespace bitctl;

namespace {

void print(const std::string& name, const CrashCounts& c) {
  fmt::print("{:<45} states {:>8}  distinct {:>8}  torn {} half {} none {} lost {} stuck {}\n{}", name,
             c.states, c.distinct, c.torn, c.half, c.none, c.lost, c.stuck,
             c.first.empty() ? "" : "  " + c.first + "\n");
  std::fflush(stdout);
}

}  // namespace

int main(int argc, char** argv) {
  CrashLimits limits{.all_up_to = 12, .random = 3000};
  CLI::App app;
  app.add_option("--random", limits.random);
  app.add_option("--all-up-to", limits.all_up_to);
  app.add_option("--seed", limits.seed);
  CLI11_PARSE(app, argc, argv);

  CrashCounts all;
  const auto cases = save_cases();
  for (const CrashCase& crash_case : cases) {
    const CrashCounts counts = try_every_crash(crash_case, limits);
    print(crash_case.name, counts);
    all += counts;
  }
  // Too many pieces for every combination.
  CrashCounts larger;
  for (const CrashCase& crash_case : save_cases(16000)) larger += try_every_crash(crash_case, limits);
  print("each with 19 pages of data, at random", larger);
  all += larger;
  const CrashLimits fewer{
      .all_up_to = limits.all_up_to / 2, .random = limits.random / 100, .seed = limits.seed};
  CrashCounts killed;
  for (const CrashCase& crash_case : cases)
    for (const CrashCase& again : killed_and_saved_again(crash_case)) killed += try_every_crash(again, fewer);
  print("each killed after each call, and again", killed);
  all += killed;
  CrashCounts failing;
  for (const int error : {EIO, ENOSPC})
    for (const CrashCase& crash_case : failing_cases(error)) failing += try_every_crash(crash_case, fewer);
  print("each with each call failing", failing);
  all += failing;
  size_t flagged = 0;
  const auto twins = bad_twins();
  for (const CrashCase& twin : twins) {
    const CrashCounts counts = try_every_crash(twin, limits);
    print("control: " + twin.name, counts);
    flagged += counts.violations() > 0;
  }
  fmt::print("RESULT states={} distinct={} violations={} twins_flagged={} of {}\n", all.states, all.distinct,
             all.violations(), flagged, twins.size());
  return all.violations() == 0 && flagged == twins.size() ? 0 : 1;
}
