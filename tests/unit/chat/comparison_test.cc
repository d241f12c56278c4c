#include "chat/comparison.h"

#include <gmock/gmock.h>

namespace bitctl {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

std::string columns(ComparedAnswer left, ComparedAnswer right, int width) {
  std::vector<ComparedAnswer> answers;
  answers.push_back(std::move(left));
  answers.push_back(std::move(right));
  return side_by_side(answers, width);
}

TEST(ModelsToCompare, AreNamesOrStepsOfTheRun) {
  EXPECT_THAT(*models_to_compare("org/a  b", "/run"),
              ElementsAre(ModelChoice{.path = "org/a"}, ModelChoice{.path = "b"}));
  EXPECT_THAT(*models_to_compare("10 20", "/run"),
              ElementsAre(ModelChoice{.path = "/run", .step = 10}, ModelChoice{.path = "/run", .step = 20}));
  EXPECT_THAT(models_to_compare("10 b", "").error().message, HasSubstr("10: the model is not of a run"));
  for (const char* words : {"", "a", "a b c"})
    EXPECT_THAT(models_to_compare(words, "").error().message, HasSubstr("two models or steps")) << words;
}

TEST(SideBySide, FillsColumnsByCells) {
  EXPECT_EQ(columns({"one", "short"}, {"two", "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxx\nnext"}, 53),
            "one                       | two\n"
            "                          | \n"
            "short                     | xxxxxxxxxxxxxxxxxxxxxxxxx\n"
            "                          | xxxxx\n"
            "                          | next");
}

TEST(SideBySide, WideCharactersTakeTwoCellsAndNothingSteersTheTerminal) {
  const std::string text = columns({"a", "漢字\x1b[31m"}, {"b", "y"}, 53);
  EXPECT_THAT(text, HasSubstr("漢字^[[31m                | y"));
}

TEST(SideBySide, ANarrowTerminalHasThemBelowEachOther) {
  EXPECT_EQ(columns({"one", "x"}, {"two", "y"}, 40), "== one\nx\n== two\ny");
}

}  // namespace
}  // namespace bitctl
