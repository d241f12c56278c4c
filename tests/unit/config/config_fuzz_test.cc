// Damaged configs: whatever the bytes, the answer is a config that can be written down and read again, or at
// least one line that says what is wrong. The seed is fixed, so a failure comes back.
#include <gtest/gtest.h>

#include <random>

#include "base/text.h"
#include "base/visible_text.h"
#include "config/run_config.h"
#include "unit/temporary_folder.h"

namespace bitctl {
namespace {

class Mutator {
 public:
  explicit Mutator(uint32_t seed) : random_(seed) {}

  size_t below(size_t n) { return n == 0 ? 0 : random_() % n; }

  std::string mutant(std::string text) {
    for (size_t i = 0, n = 1 + below(3); i < n; ++i) change(text);
    return text;
  }

 private:
  void change(std::string& text) {
    static const std::vector<std::string> kPieces = {"&a ",   "*a",    "!!str ",
                                                     "<<: ",  "- ",    "? ",
                                                     ": ",    "{",     "}",
                                                     "[",     "]",     "'",
                                                     "\"",    "|\n",   ">\n",
                                                     "#",     "\t",    "\n",
                                                     "\r",    "\r\n",  "---\n",
                                                     "...\n", "${",    "${X}",
                                                     "$$",    "~",     "null",
                                                     "1e999", "-1",    "99999999999999999999",
                                                     "0x",    "\xff",  "\xef\xbb\xbf",
                                                     "\\u",   "\\x00", "%YAML 1.1\n",
                                                     "run: ", "  ",    ", ",
                                                     "true",  "é",     "{run_dir}"};
    const size_t at = below(text.size() + 1);
    const size_t length = below(std::min<size_t>(text.size() - at, 40) + 1);
    switch (below(6)) {
      case 0:
        if (at < text.size()) text[at] = static_cast<char>(below(256));
        break;
      case 1:
        text.erase(at, length);
        break;
      case 2:
        text.insert(below(text.size() + 1), text.substr(at, length));
        break;
      case 3:
        text.resize(at);
        break;
      default:
        text.insert(at, kPieces[below(kPieces.size())]);
    }
  }

  std::mt19937 random_;
};

TEST(ConfigFuzz, TwoThousandMutantsGiveAConfigOrAReason) {
  TemporaryFolder folder;
  std::vector<std::string> good, bad;
  for (auto& [kind, seeds] : {std::pair("good/", &good), std::pair("bad/", &bad)}) {
    for (const auto& entry : std::filesystem::directory_iterator(
             std::string(BITCTL_SOURCE_DIR "/tests/samples/config/") + kind)) {
      if (entry.path().extension() == ".yaml")
        seeds->push_back(read_text(entry.path()));
      else
        folder.write(entry.path().filename(), read_text(entry.path()));
    }
    std::sort(seeds->begin(), seeds->end());
  }
  const Environment environment = {
      {"HF_TOKEN", "t0"}, {"HOME", "/home/user"}, {"WANDB_API_KEY", "k0"}, {"X", "x"}};

  Mutator mutator(20261120);
  int configs = 0, refusals = 0;
  for (int round = 0; round < 2000; ++round) {
    const auto& seeds = mutator.below(4) == 0 ? bad : good;
    const std::string text = mutator.mutant(seeds[mutator.below(seeds.size())]);
    const std::string path = folder.write("config.yaml", text);
    const auto config = load_config(path, {}, environment);
    if (!config) {
      ++refusals;
      for (const std::string& line : split(config.error().message, '\n'))
        ASSERT_TRUE(line.starts_with(path) && valid_utf8(line) == line) << line << "\n" << text;
      continue;
    }
    ++configs;
    ASSERT_TRUE(is_run_name(config->name));
    const std::string effective = effective_yaml(*config);
    Environment later = environment;
    for (const auto& [value, variable] : config->secrets) later.emplace(variable, value);
    const auto again = load_config(folder.write("again.yaml", effective), {}, later);
    ASSERT_TRUE(again) << again.error().message << "\n" << effective << "\n" << text;
    ASSERT_EQ(effective_yaml(*again), effective) << text;
  }
  // Both answers were met, so neither half of the check above was idle.
  EXPECT_GT(configs, 100);
  EXPECT_GT(refusals, 500);
}

}  // namespace
}  // namespace bitctl
