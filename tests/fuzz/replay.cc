// What libFuzzer is to a build without clang: every file of the corpus folders, and some thousand mutations
// of each, the same ones every time.
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <random>
#include <string>
#include <vector>

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size);

namespace {

void run(const std::string& bytes) {
  // Of its own size, so that a sanitizer sees a read behind the end.
  const std::vector<uint8_t> input(bytes.begin(), bytes.end());
  LLVMFuzzerTestOneInput(input.data(), input.size());
}

std::string mutated(std::string bytes, const std::vector<std::string>& corpus, std::mt19937_64& random) {
  for (uint64_t changes = 1 + random() % 4; changes > 0; --changes) {
    const size_t at = bytes.empty() ? 0 : random() % bytes.size();
    switch (random() % 6) {
      case 0:
        bytes.resize(at);
        break;
      case 1:
        bytes.insert(at, 1, static_cast<char>(random()));
        break;
      case 2:
        bytes.erase(at, random() % 8);
        break;
      case 3:
        bytes.insert(at, bytes.substr(random() % (bytes.size() + 1), random() % 40));
        break;
      case 4:
        bytes.replace(at, random() % 20, corpus[random() % corpus.size()].substr(0, random() % 60));
        break;
      default:
        if (!bytes.empty())
          bytes[at] = static_cast<char>(random() % 3 == 0 ? "0\xff}]\",:{-9"[random() % 10]
                                                          : bytes[at] ^ (1 << random() % 8));
    }
  }
  return bytes;
}

}  // namespace

int main(int argc, char** argv) {
  std::vector<std::string> corpus;
  for (int i = 2; i < argc; ++i)
    for (const auto& entry : std::filesystem::directory_iterator(argv[i])) {
      std::ifstream file(entry.path(), std::ios::binary);
      corpus.emplace_back(std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>());
    }
  if (argc < 3 || corpus.empty()) {
    std::fprintf(stderr, "usage: %s MUTATIONS CORPUS…, and the corpus is not empty\n", argv[0]);
    return 2;
  }
  std::mt19937_64 random(1);
  const long mutations = std::atol(argv[1]);
  for (const std::string& bytes : corpus) run(bytes);
  for (long i = 0; i < mutations; ++i) run(mutated(corpus[random() % corpus.size()], corpus, random));
  std::printf("RESULT corpus=%zu mutations=%ld\n", corpus.size(), mutations);
}
