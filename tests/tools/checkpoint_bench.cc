// Saves and loads a step without a trainer, for benchmarks: the image lies in shared memory as in the arena.
//
//   checkpoint_bench FOLDER MEBIBYTES TENSORS
//
// Then a command a line; each answers with one line of JSON, seconds of wall and processor time:
//   save STEP                  save_step into FOLDER; {"error": …} where it fails
//   load STEP                  load_step into other memory, which must then hold the same bytes
//   write THREADS PATH         the same bytes past the page cache, 4 MiB a call, and one fsync: the raw disk
//   read THREADS PATH          the same, read
#include <fcntl.h>
#include <fmt/format.h>
#include <sys/resource.h>
#include <unistd.h>

#include <chrono>
#include <cstring>
#include <functional>
#include <iostream>
#include <sstream>
#include <stdexcept>
#include <thread>

#include "base/fd.h"
#include "checkpoint/catalog.h"
#include "checkpoint/commit.h"
#include "checkpoint/load.h"

namespace {

using namespace bitctl;

constexpr uint64_t kBlock = uint64_t{4} << 20;

void must(bool good, const std::string& what) {
  if (good) return;
  std::fprintf(stderr, "checkpoint_bench: %s: %s\n", what.c_str(), std::strerror(errno));
  std::exit(1);
}

// Float32 tensors of unlike sizes, `bytes` in all.
std::vector<TensorInfo> tensors_of(const std::string& prefix, uint64_t bytes, uint64_t count) {
  std::vector<TensorInfo> tensors;
  for (uint64_t i = 0, begin = 0; i < count; ++i) {
    const uint64_t even = (bytes - begin) / (count - i) / 4;
    const uint64_t elements = i + 1 == count ? even : std::max<uint64_t>(1, even * (1 + i % 3) / 2);
    tensors.push_back({fmt::format("{}.{}", prefix, i),
                       "F32",
                       {static_cast<int64_t>(elements)},
                       begin,
                       begin + elements * 4});
    begin = tensors.back().end;
  }
  return tensors;
}

class Bench {
 public:
  Bench(std::string folder, uint64_t mebibytes, uint64_t tensors) : folder_(std::move(folder)) {
    const uint64_t bytes = mebibytes > 0 ? mebibytes << 20 : 1024;
    layout_.gen = 1;
    add(kModelFile, tensors_of("model", bytes / 3 / 4 * 4, std::max<uint64_t>(1, tensors / 3)));
    add(kTrainingFile,
        tensors_of("optim", (bytes - bytes / 3) / 4 * 4, std::max<uint64_t>(1, tensors - tensors / 3)));
    from_ = memory("from");
    to_ = memory("to");
    uint64_t random = 88172645463325252u;
    for (char* p = from_.data(); p < from_.data() + from_.size(); p += 4) {
      random ^= random << 13, random ^= random >> 7, random ^= random << 17;
      const uint32_t word = 0x3f800000 | static_cast<uint32_t>(random & 0x7fffff);
      std::memcpy(p, &word, 4);
    }
    for (size_t i = 0; i < image_.files.size(); ++i)
      image_.files[i].data = from_.data() + layout_.offset_of(i) + layout_.files[i].header_bytes;
    image_.run = "bench";
  }

  std::string answer(const std::string& line) {
    std::istringstream words(line);
    std::string command, path;
    uint64_t number = 0;
    words >> command >> number >> path;
    if (command == "save") return timed([&] { save(number); });
    if (command == "load") return timed([&] { load(number); });
    if (command == "write" || command == "read") return timed([&] { raw(command == "write", number, path); });
    must(false, "no command " + line);
    return {};
  }

 private:
  void add(const char* name, std::vector<TensorInfo> tensors) {
    const uint64_t bytes = tensors.back().end;
    const uint64_t least = build_header(tensors, {{"format", "pt"}})->size();
    FileImage file;
    file.name = name;
    file.header =
        *build_header(tensors, {{"format", "pt"}}, (least + kArenaPage - 1) / kArenaPage * kArenaPage);
    file.table = *parse_header(file.header, file.header.size() + bytes);
    layout_.files.push_back({name, file.header.size(), (bytes + kArenaPage - 1) / kArenaPage * kArenaPage});
    image_.files.push_back(std::move(file));
  }

  SharedMemory memory(const char* name) const {
    auto fd = create_memory(name, layout_.slot_bytes());
    must(fd && allocate_memory(fd->get(), layout_.slot_bytes()), "memory");
    return std::move(*SharedMemory::map(fd->get(), layout_.slot_bytes()));
  }

  static std::string timed(const std::function<void()>& work) {
    const auto cpu = [] {
      rusage use{};
      ::getrusage(RUSAGE_SELF, &use);
      return static_cast<double>(use.ru_utime.tv_sec + use.ru_stime.tv_sec) +
             1e-6 * static_cast<double>(use.ru_utime.tv_usec + use.ru_stime.tv_usec);
    };
    const double cpu_before = cpu();
    const auto begun = std::chrono::steady_clock::now();
    work();
    const std::chrono::duration<double> wall = std::chrono::steady_clock::now() - begun;
    return fmt::format(R"({{"wall": {:.6f}, "cpu": {:.6f}}})", wall.count(), cpu() - cpu_before);
  }

  void save(uint64_t step) {
    image_.step = step;
    const auto saved = save_step(folder_, image_, {});
    if (!saved) throw std::runtime_error(saved.error().message);
  }

  void load(uint64_t step) {
    const StepFolder folder{step, folder_ + "/" + step_folder_name(step)};
    const auto manifest = inspect_step(folder);
    must(manifest.has_value(), manifest ? "" : manifest.error().message);
    bitctl_slot slot{};
    const auto status = load_step(folder, *manifest, layout_, to_.data(), &slot);
    must(status.has_value(), status ? "" : status.error().message);
    must(slot.loaded == layout_.offset_of(1) + manifest->files[1].bytes, "the watermark is not at the end");
  }

  void raw(bool writing, uint64_t threads, const std::string& path) {
    const uint64_t size = from_.size();
    const Fd fd(writing ? ::open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_DIRECT | O_CLOEXEC, 0666)
                        : ::open(path.c_str(), O_RDONLY | O_DIRECT | O_CLOEXEC));
    must(static_cast<bool>(fd), path);
    if (writing) must(::fallocate(fd.get(), 0, 0, static_cast<off_t>(size)) == 0, path);
    std::atomic<uint64_t> next = 0;
    const auto work = [&] {
      for (uint64_t at = next.fetch_add(kBlock); at < size; at = next.fetch_add(kBlock)) {
        const uint64_t block = std::min(kBlock, size - at);
        const ssize_t n = writing ? ::pwrite(fd.get(), from_.data() + at, block, static_cast<off_t>(at))
                                  : ::pread(fd.get(), to_.data() + at, block, static_cast<off_t>(at));
        must(n == static_cast<ssize_t>(block), path);
      }
    };
    std::vector<std::thread> others;
    for (uint64_t i = 1; i < threads; ++i) others.emplace_back(work);
    work();
    for (auto& other : others) other.join();
    if (writing) must(::fsync(fd.get()) == 0, path);
  }

  std::string folder_;
  ArenaLayout layout_;
  StepImage image_;
  SharedMemory from_, to_;
};

}  // namespace

int main(int argc, char** argv) {
  must(argc == 4, "three arguments, please");
  Bench bench(argv[1], std::stoull(argv[2]), std::stoull(argv[3]));
  std::cout << "ready" << std::endl;
  for (std::string line; std::getline(std::cin, line);) {
    try {
      std::cout << bench.answer(line) << std::endl;
    } catch (const std::runtime_error& error) {
      std::cout << dump_line(Json{{"error", error.what()}}) << std::endl;
    }
  }
}
