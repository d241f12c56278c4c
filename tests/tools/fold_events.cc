// fold_events FILE: prints the PULSE file that these events add up to.
#include <cstdio>

#include "pulse/status.h"
#include "run/history.h"

int main(int argc, char** argv) {
  const auto history = argc == 2 ? bitctl::read_history(argv[1]) : bitctl::read_history("");
  if (!history) return 1;
  std::fputs(bitctl::to_file_bytes(history->pulse).c_str(), stdout);
}
