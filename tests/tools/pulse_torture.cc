// Readers against one writer, all at full speed. Every document is consistent in itself, so a mixture of two
// is noticed even where it parses. Prints one line of JSON; exit code 1 where a read was torn. With
// --in-place the writer truncates and writes the file itself, as many programs do: the control that has to
// find torn reads.
#include <fmt/format.h>

#include <atomic>
#include <chrono>
#include <fstream>
#include <string>
#include <thread>
#include <vector>

#include <CLI/CLI.hpp>

#include "pulse/read.h"
#include "pulse/write.h"

namespace {

using namespace bitctl;

PulseStatus document(int64_t n) {
  const auto number = static_cast<double>(n);
  return {TrainingState::running,
          number,
          number + 1,
          number / 2,
          std::string(static_cast<size_t>(n % 3000), 'm'),
          n};
}

void publish(const std::string& path, int64_t n, bool in_place) {
  if (in_place)
    std::ofstream(path, std::ios::binary | std::ios::trunc) << to_file_bytes(document(n));
  else if (const Status status = write_pulse(path, document(n)); !status)
    throw std::runtime_error(status.error().message);
}

struct Counts {
  std::atomic<int64_t> reads{0}, torn{0}, missing{0};
};

void read_until(int64_t enough, const std::string& path, Counts& counts) {
  while (counts.reads.fetch_add(1) < enough) {
    const PulseRead read = read_pulse(path);
    if (const auto* good = std::get_if<PulseGood>(&read))
      counts.torn += good->status != document(good->status.timestamp);
    else
      ++(std::holds_alternative<PulseMissing>(read) ? counts.missing : counts.torn);
  }
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app("Readers against one writer of a PULSE file");
  std::string path;
  int64_t reads = 1'000'000;
  int readers = 4;
  bool in_place = false;
  app.add_option("FILE", path)->required();
  app.add_option("--reads", reads, "reads in total");
  app.add_option("--readers", readers);
  app.add_flag("--in-place", in_place, "truncate and write the file itself");
  CLI11_PARSE(app, argc, argv);

  publish(path, 1, in_place);
  Counts counts;
  const auto begin = std::chrono::steady_clock::now();
  std::vector<std::jthread> threads;
  for (int i = 0; i < readers; ++i) threads.emplace_back([&] { read_until(reads, path, counts); });
  int64_t writes = 1;
  while (counts.reads < reads) publish(path, ++writes, in_place);
  threads.clear();
  const std::chrono::duration<double> took = std::chrono::steady_clock::now() - begin;
  const int64_t torn = counts.torn, missing = counts.missing;
  fmt::print(R"({{"reads":{},"writes":{},"torn":{},"missing":{},"seconds":{:.1f}}})"
             "\n",
             reads, writes, torn, missing, took.count());
  return torn + missing == 0 ? 0 : 1;
}
