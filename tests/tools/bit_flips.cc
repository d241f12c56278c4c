// bit_flips [--flips N] [--seed N]: the long form of checkpoint/bit_flips_test.cc. RESULT …; exit code 1
// where one is missed.
#include "checkpoint/bit_flips.h"

#include <CLI/CLI.hpp>

#include "checkpoint/step_image.h"
#include "temporary_folder.h"

using namespace bitctl;

int main(int argc, char** argv) {
  uint64_t flips = 1'000'000, seed = 1;
  CLI::App app;
  app.add_option("--flips", flips);
  app.add_option("--seed", seed);
  CLI11_PARSE(app, argc, argv);
  const TemporaryFolder folder(in_memory());
  folder.write(".side/abc/config.json", "{\"hidden_size\": 64}\n");
  TestStep step(1, 'a', 300);
  step.image.side_folder = folder / ".side/abc";
  if (!save_step(folder.path(), step.image, {})) return 1;
  const FlipCounts counts = flip_bits({1, folder / "step-000000001"}, flips, seed);
  fmt::print("RESULT flips={} missed={} {}\n", counts.flips, counts.missed, counts.first_missed);
  return counts.missed == 0 ? 0 : 1;
}
