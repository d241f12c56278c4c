#include "base/columns.h"

#include <gtest/gtest.h>

namespace bitctl {
namespace {

TEST(ColumnsOf, CountsColumns) {
  EXPECT_EQ(columns_of(""), 0u);
  EXPECT_EQ(columns_of("loss"), 4u);
  EXPECT_EQ(columns_of("日本"), 4u);
  EXPECT_EQ(columns_of("e\u0301"), 1u);
  EXPECT_EQ(columns_of("█░"), 2u);
  EXPECT_EQ(columns_of("❌"), 2u);
  EXPECT_EQ(columns_of("⏸\ufe0f"), 2u);
}

TEST(Clipped, NeverTakesMoreColumnsThanThereAre) {
  EXPECT_EQ(clipped("loss", 4), "loss");
  EXPECT_EQ(clipped("losses", 4), "los…");
  EXPECT_EQ(clipped("日本語", 6), "日本語");
  EXPECT_EQ(clipped("日本語", 5), "日本…");
  EXPECT_EQ(clipped("日本語", 4), "日…");
  EXPECT_EQ(clipped("loss", 0), "");
  for (size_t columns = 0; columns < 12; ++columns)
    EXPECT_LE(columns_of(clipped("a日b本e\u0301❌c", columns)), columns);
}

TEST(Clipped, CutsAFloodOfCombiningMarks) {
  std::string flood = "a";
  for (int i = 0; i < 10000; ++i) flood += "\u0301";
  EXPECT_LT(clipped(flood, 10).size(), 120u);
}

}  // namespace
}  // namespace bitctl
