#include "base/strict_json.h"

#include <gtest/gtest.h>

namespace bitctl {
namespace {

TEST(StrictJson, KeepsOrderAndTypes) {
  const auto json = parse_strict_json(R"({"b": 1, "a": [1.5, true, null, "x"], "c": {"d": -2}})");
  ASSERT_TRUE(json);
  EXPECT_EQ(dump_line(*json), R"({"b":1,"a":[1.5,true,null,"x"],"c":{"d":-2}})");
}

struct Bad {
  const char* name;
  std::string text;
  size_t byte;
  const char* reason;  // a part of it
};

class StrictJsonBad : public testing::TestWithParam<Bad> {};

TEST_P(StrictJsonBad, IsRefusedWithTheByteAndTheReason) {
  const auto json = parse_strict_json(GetParam().text, 4);
  ASSERT_FALSE(json);
  EXPECT_EQ(json.error().byte, GetParam().byte) << json.error().reason;
  EXPECT_NE(json.error().reason.find(GetParam().reason), std::string::npos) << json.error().reason;
}

INSTANTIATE_TEST_SUITE_P(
    Each, StrictJsonBad,
    testing::Values(Bad{"empty", "", 0, "empty"}, Bad{"bom", "\xef\xbb\xbf{}", 0, "byte order mark"},
                    Bad{"nan", R"({"a": NaN})", 6, "syntax error"},
                    Bad{"infinity", R"({"a": Infinity})", 6, "syntax error"},
                    Bad{"duplicate", R"({"a": 1, "a": 2})", 12, "duplicate key \"a\""},
                    Bad{"duplicate_when_unescaped", R"({"a": 1, "\u0061": 2})", 17, "duplicate key \"a\""},
                    Bad{"trailing", "{} x", 3, "syntax error"},
                    Bad{"nul_padding", std::string("{}\0", 3), 2, "a NUL byte"},
                    Bad{"trailing_behind_nul", std::string("{}\0x", 4), 2, "a NUL byte"},
                    Bad{"deep", "[[[[[1]]]]]", 5, "nested deeper than 4"},
                    Bad{"overflow", "[1e999]", 5, "number overflow"},
                    Bad{"truncated", R"({"a": )", 6, "syntax error"},
                    Bad{"invalid_utf8", "[\"\xff\"]", 2, "invalid string"},
                    Bad{"lone_surrogate", R"(["\ud800"])", 8, "surrogate"},
                    Bad{"control_character", "[\"\x01\"]", 2, "control character"}),
    [](const auto& info) { return info.param.name; });

TEST(StrictJson, EveryPrefixOfADocumentIsRefused) {
  const std::string text = R"({"status": "running", "epoch": 1.5, "list": [1, 2, {"x": null}]})";
  for (size_t size = 0; size < text.size(); ++size)
    EXPECT_FALSE(parse_strict_json(std::string_view(text).substr(0, size))) << size;
  EXPECT_TRUE(parse_strict_json(text));
}

TEST(StrictJson, TellsWhereTheOutermostValuesBegin) {
  const std::string text = R"({"a":1, "b" : {"a": 2, "c": 3},"\u0064":)"
                           "\n\t"
                           R"([4], "a:b" : -5})";
  ValueOffsets offsets;
  ASSERT_TRUE(parse_strict_json(text, 64, &offsets));
  EXPECT_EQ(offsets, (ValueOffsets{{"a", text.find("1")},
                                   {"b", text.find("{\"a\": 2")},
                                   {"d", text.find("[4]")},
                                   {"a:b", text.find("-5")}}));
}

TEST(DumpLine, ReplacesInvalidUtf8) { EXPECT_EQ(dump_line(Json("a\xff")), "\"a\xef\xbf\xbd\""); }

}  // namespace
}  // namespace bitctl
