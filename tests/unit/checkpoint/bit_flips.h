// Bit rot: one bit at a time, anywhere in a checkpoint.
#pragma once

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <filesystem>
#include <random>
#include <string>
#include <vector>

#include "base/fd.h"
#include "checkpoint/catalog.h"

namespace bitctl {

struct FlipCounts {
  uint64_t flips = 0;
  uint64_t missed = 0;
  std::string first_missed;
};

// A bit of a random byte of all files together, so often; each is put right again.
inline FlipCounts flip_bits(const StepFolder& step, uint64_t flips, uint64_t seed) {
  std::vector<std::string> paths;
  std::vector<double> bytes;
  for (const auto& entry : std::filesystem::directory_iterator(step.path)) {
    paths.push_back(entry.path());
    bytes.push_back(static_cast<double>(entry.file_size()));
  }
  std::mt19937_64 random(seed);
  std::discrete_distribution<size_t> which(bytes.begin(), bytes.end());
  FlipCounts counts;
  for (; counts.flips < flips; ++counts.flips) {
    const std::string& path = paths[which(random)];
    const auto at = static_cast<off_t>(random() % std::filesystem::file_size(path));
    const int bit = static_cast<int>(random() % 8);
    const Fd fd(::open(path.c_str(), O_RDWR | O_CLOEXEC));
    char good = 0;
    if (::pread(fd.get(), &good, 1, at) != 1) std::abort();
    const char bad = static_cast<char>(good ^ (1 << bit));
    if (::pwrite(fd.get(), &bad, 1, at) != 1) std::abort();
    if (verify_step(step)) {
      ++counts.missed;
      if (counts.first_missed.empty())
        counts.first_missed = fmt::format("{}: bit {} of byte {}", path, bit, at);
    }
    if (::pwrite(fd.get(), &good, 1, at) != 1) std::abort();
  }
  return counts;
}

}  // namespace bitctl
