// Every file of tests/samples/config: the good ones load, the bad ones fail with exactly the problems that
// their own "# expect: <line>:<column>: <what>" comments name.
#include <gtest/gtest.h>

#include <algorithm>

#include "base/replace_file.h"
#include "base/text.h"
#include "config/run_config.h"
#include "unit/temporary_folder.h"

namespace bitctl {
namespace {

const std::string kSamples = BITCTL_SOURCE_DIR "/tests/samples/config/";

std::vector<std::string> samples(const std::string& folder) {
  std::vector<std::string> paths;
  for (const auto& entry : std::filesystem::directory_iterator(kSamples + folder))
    if (entry.path().extension() == ".yaml") paths.push_back(entry.path());
  std::sort(paths.begin(), paths.end());
  return paths;
}

std::string stem(const testing::TestParamInfo<std::string>& info) {
  std::string name = std::filesystem::path(info.param).stem();
  std::replace(name.begin(), name.end(), '-', '_');
  return name;
}

class GoodSample : public testing::TestWithParam<std::string> {};

TEST_P(GoodSample, LoadsAndItsEffectiveConfigIsAFixedPoint) {
  const Environment environment = {{"HF_TOKEN", "canary-in-the-environment"}, {"HOME", "/home/user"}};
  const auto config = load_config(GetParam(), {}, environment);
  ASSERT_TRUE(config) << config.error().message;
  const std::string effective = effective_yaml(*config);
  EXPECT_EQ(effective.find("canary"), std::string::npos) << effective;
  EXPECT_EQ(dry_run_text(*config).find("canary"), std::string::npos);

  TemporaryFolder elsewhere;
  Environment later = environment;
  later["WANDB_API_KEY"] = "canary-in-the-file";  // was spelled out, is now asked for
  const auto again = load_config(elsewhere.write("config.yaml", effective), {}, later);
  ASSERT_TRUE(again) << again.error().message << effective;
  EXPECT_EQ(effective_yaml(*again), effective);
  EXPECT_EQ(trainer_argv(*again, "/r"), trainer_argv(*config, "/r"));
  EXPECT_EQ(trainer_environment(*again), trainer_environment(*config));
}

INSTANTIATE_TEST_SUITE_P(Each, GoodSample, testing::ValuesIn(samples("good")), stem);

class BadSample : public testing::TestWithParam<std::string> {};

TEST_P(BadSample, FailsWithWhatItExpects) {
  std::vector<std::string> expected;
  for (const std::string& line : split(read_text(GetParam()), '\n')) {
    if (!line.starts_with("# expect: ")) continue;
    std::string text = GetParam() + ":" + line.substr(10);
    if (const size_t at = text.find("{folder}"); at != std::string::npos)
      text.replace(at, 8, folder_of(GetParam()));
    expected.push_back(text);
  }
  ASSERT_FALSE(expected.empty());
  const auto config = load_config(GetParam(), {}, {});
  ASSERT_FALSE(config);
  EXPECT_EQ(split(config.error().message, '\n'), expected);
}

INSTANTIATE_TEST_SUITE_P(Each, BadSample, testing::ValuesIn(samples("bad")), stem);

}  // namespace
}  // namespace bitctl
