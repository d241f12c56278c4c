// Times kernels over weights that lie in memory as a mapped file does, for scripts/bench/chat/kernels.
//
//   kernels_bench MEBIBYTES COLUMNS
//
// Then a command a line; each answers with one line of JSON, the seconds it took by the clock and of all
// processors:
//   probe THREADS                          every byte read once, by plain vector loads
//   multiply TYPE ISA THREADS TOKENS       every weight used once: f32, bf16, f16, int8, ternary, or dpbf16:
//                                          bf16 with the activations rounded to it, by vdpbf16ps (one token)
//   jobs THREADS COUNT PIECES              that many jobs without work, one after the other
#include <fmt/format.h>
#include <immintrin.h>
#include <sys/mman.h>
#include <time.h>

#include <cstring>
#include <iostream>
#include <map>
#include <sstream>
#include <vector>

#include "kernels/matmul.h"

namespace {

using namespace bitctl;

[[noreturn]] void give_up(const std::string& why) {
  std::fprintf(stderr, "kernels_bench: %s\n", why.c_str());
  std::exit(1);
}

__attribute__((target("avx512f"))) uint64_t read_all(const char* from, size_t bytes) {
  __m512i sums[8] = {};
  for (size_t at = 0; at + sizeof sums <= bytes; at += sizeof sums)
    for (size_t i = 0; i < 8; ++i)
      sums[i] = _mm512_xor_si512(sums[i], _mm512_loadu_si512(from + at + i * sizeof(__m512i)));
  uint64_t words[64], all = 0;
  std::memcpy(words, sums, sizeof words);
  for (const uint64_t word : words) all ^= word;
  return all;
}

__attribute__((target("avx512f,avx512bf16"))) float dpbf16_row(const uint16_t* w, const uint16_t* x,
                                                               size_t columns) {
  __m512 sums[2] = {};
  for (size_t c = 0; c + 64 <= columns; c += 64)
    for (size_t i = 0; i < 2; ++i)
      sums[i] = _mm512_dpbf16_ps(sums[i], (__m512bh)_mm512_loadu_si512(w + c + i * 32),
                                 (__m512bh)_mm512_loadu_si512(x + c + i * 32));
  float lanes[32], sum = 0;
  std::memcpy(lanes, sums, sizeof lanes);
  for (const float lane : lanes) sum += lane;
  return sum;
}

class Bench {
 public:
  Bench(size_t mebibytes, size_t columns) : bytes_(mebibytes << 20), columns_(columns) {
    void* memory =
        ::mmap(nullptr, bytes_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED) give_up(fmt::format("no {} bytes of memory", bytes_));
    ::madvise(memory, bytes_, MADV_NOHUGEPAGE);  // a file's pages are small
    weights_ = static_cast<char*>(memory);
    uint64_t random = 88172645463325252u;
    for (size_t at = 0; at < bytes_; at += 2) {
      random ^= random << 13, random ^= random >> 7, random ^= random << 17;
      // Near one in each of the float types, and any bits in every other byte.
      const auto word = static_cast<uint16_t>(0x3c00 | (random & 0x83ff));
      std::memcpy(weights_ + at, &word, sizeof word);
    }
  }

  std::string answer(const std::string& line) {
    std::istringstream words(line);
    std::string command;
    words >> command;
    if (command == "probe") {
      words >> threads_;
      return timed([&] { probe(); });
    }
    if (command == "multiply") {
      std::string type, isa;
      size_t tokens = 0;
      words >> type >> isa >> threads_ >> tokens;
      x_.assign(tokens * columns_, 0.5F);
      y_.resize(tokens * (bytes_ / columns_) * 4);
      if (type == "dpbf16") return timed([&] { multiply_dpbf16(); });
      const auto level = choose_isa(isa, machine_isa());
      if (!level) give_up(level.error().message);
      const Product product{matrix(type), y_.data()};
      return timed([&] { matmul(pool_, {&product, 1}, x_.data(), tokens, *level); });
    }
    if (command == "jobs") {
      size_t count = 0, pieces = 0;
      words >> threads_ >> count >> pieces;
      return timed([&] {
        for (size_t i = 0; i < count; ++i) pool_.run(pieces, 1, [](size_t, size_t) {});
      });
    }
    give_up("no command " + line);
  }

 private:
  Matrix matrix(const std::string& type) {
    static const std::map<std::string, std::pair<Matrix::Type, size_t>> kTypes = {
        {"f32", {Matrix::Type::f32, 4}},         {"bf16", {Matrix::Type::bf16, 2}},
        {"f16", {Matrix::Type::f16, 2}},         {"int8", {Matrix::Type::int8, 1}},
        {"ternary", {Matrix::Type::ternary, 1}},
    };
    const auto found = kTypes.find(type);
    if (found == kTypes.end()) give_up("no type " + type);
    const size_t rows = bytes_ / columns_ / found->second.second;
    scales_.assign(rows, 0.5F);
    return {found->second.first, type == "ternary" ? rows * 4 : rows, columns_, weights_, scales_.data()};
  }

  void probe() {
    pool_.run(bytes_, size_t{1} << 20, [&](size_t begin, size_t end) {
      const uint64_t sum = read_all(weights_ + begin, end - begin);
      asm volatile("" ::"r"(sum));
    });
  }

  void multiply_dpbf16() {
    if (!__builtin_cpu_supports("avx512bf16")) give_up("this machine has no AVX-512 BF16");
    const std::vector<uint16_t> x(columns_, 0x3f00);
    const auto* w = reinterpret_cast<const uint16_t*>(weights_);
    pool_.run(bytes_ / columns_ / 2, std::max<size_t>(1, 32768 / columns_), [&](size_t begin, size_t end) {
      for (size_t row = begin; row < end; ++row) y_[row] = dpbf16_row(w + row * columns_, x.data(), columns_);
    });
  }

  static double seconds(clockid_t clock) {
    timespec now{};
    ::clock_gettime(clock, &now);
    return static_cast<double>(now.tv_sec) + 1e-9 * static_cast<double>(now.tv_nsec);
  }

  template <class Work>
  std::string timed(Work&& work) {
    if (pool_.threads() != threads_) pool_.set_threads(threads_);
    const double cpu = seconds(CLOCK_PROCESS_CPUTIME_ID), wall = seconds(CLOCK_MONOTONIC);
    work();
    return fmt::format(R"({{"wall": {:.9f}, "cpu": {:.9f}}})", seconds(CLOCK_MONOTONIC) - wall,
                       seconds(CLOCK_PROCESS_CPUTIME_ID) - cpu);
  }

  const size_t bytes_, columns_;
  char* weights_ = nullptr;
  std::vector<float> x_, y_, scales_;
  int threads_ = 1;
  Pool pool_{1};
};

}  // namespace

int main(int argc, char** argv) {
  if (argc != 3) give_up("MEBIBYTES COLUMNS");
  Bench bench(std::stoull(argv[1]), std::stoull(argv[2]));
  std::cout << "ready" << std::endl;
  for (std::string line; std::getline(std::cin, line);) std::cout << bench.answer(line) << std::endl;
}
