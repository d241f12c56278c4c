#include "supervise/retention_policy.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "temporary_folder.h"

namespace bitctl {
namespace {

TEST(RetentionPolicyOfARun, IsThatOfItsConfig) {
  TemporaryFolder folder;
  const std::string path =
      folder.write("config.yaml",
                   "run: {command: [echo]}\n"
                   "checkpoints: {keep_last: 7, keep_every: 50, keep_best: {metric: acc, "
                   "mode: max, count: 2}}\n");
  const auto read = read_retention_policy(path);
  ASSERT_TRUE(read) << read.error().message;
  const auto config = load_config(path, {}, {});
  ASSERT_TRUE(config) << config.error().message;
  for (const RetentionPolicy& policy : {*read, retention_policy(*config)}) {
    EXPECT_EQ(policy.keep_last, 7);
    EXPECT_EQ(policy.keep_every, 50u);
    ASSERT_TRUE(policy.keep_best);
    EXPECT_EQ(policy.keep_best->metric, "acc");
    EXPECT_FALSE(policy.keep_best->smallest);
    EXPECT_EQ(policy.keep_best->count, 2);
  }
}

TEST(RetentionPolicyOfARun, HasTheSameDefaults) {
  TemporaryFolder folder;
  const std::string path = folder.write("config.yaml", "run: {command: [echo]}\n");
  const auto read = read_retention_policy(path);
  const auto config = load_config(path, {}, {});
  ASSERT_TRUE(read && config);
  EXPECT_EQ(read->keep_last, retention_policy(*config).keep_last);
  EXPECT_EQ(read->keep_every, retention_policy(*config).keep_every);
  EXPECT_FALSE(read->keep_best);
}

TEST(RetentionPolicyOfARun, NeedsNoTrainerButASoundConfig) {
  TemporaryFolder folder;
  EXPECT_TRUE(read_retention_policy(folder.write("config.yaml", "run: {python: /gone, script: gone.py}\n")));
  EXPECT_EQ(
      read_retention_policy(folder.write("config.yaml", "checkpoints: {keep_last: 0}\nrun: {script: x}\n"))
          .error()
          .kind,
      ErrorKind::damaged);
  EXPECT_EQ(read_retention_policy(folder / "none").error().kind, ErrorKind::not_found);
}

}  // namespace
}  // namespace bitctl
