#include "checkpoint/choose.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "step_image.h"
#include "temporary_folder.h"

namespace bitctl {
namespace {

using testing::HasSubstr;

class ChooseStep : public testing::Test {
 protected:
  void save(uint64_t step, double loss) {
    TestStep one(step);
    one.image.metrics = {{"loss", loss}};
    ASSERT_TRUE(save_step(folder_.path(), one.image, {}));
  }
  auto choose(const std::string& name, const BestMetric& best = {"loss"}) {
    return choose_step(folder_.path(), name, best);
  }
  TemporaryFolder folder_;
};

TEST_F(ChooseStep, ByNumberNewestOrBest) {
  save(10, 0.5);
  save(20, 0.25);
  save(30, 0.75);
  EXPECT_EQ(choose("20")->step, 20u);
  EXPECT_EQ(choose("newest")->step, 30u);
  EXPECT_EQ(choose("best")->step, 20u);
  EXPECT_EQ(choose("best", {"loss", false})->step, 30u);
  std::filesystem::remove(folder_ / "step-000000030/manifest.json");
  EXPECT_EQ(choose("newest")->step, 20u) << "not one that is damaged";
  EXPECT_EQ(choose("30")->step, 30u) << "but by its number";
}

TEST_F(ChooseStep, SaysWhatIsThere) {
  save(10, 0.5);
  save(20, 0.25);
  EXPECT_THAT(choose("15").error().message, HasSubstr("no checkpoint of step 15; there are 20, 10"));
  EXPECT_THAT(choose("best", {"accuracy"}).error().message, HasSubstr("has the metric \"accuracy\""));
  for (const char* name : {"", "last", "-1", "1x", "99999999999999999999"}) {
    EXPECT_FALSE(step_number(name)) << name;
    EXPECT_EQ(choose(name).error().kind, ErrorKind::invalid) << name;
  }
}

}  // namespace
}  // namespace bitctl
