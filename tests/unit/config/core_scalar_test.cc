#include "config/core_scalar.h"

#include <gtest/gtest.h>

#include <cmath>

namespace bitctl {
namespace {

TEST(CoreScalar, KnowsTheTypesOfYaml12AndNoOthers) {
  const std::pair<const char*, Json> cases[] = {{"true", true},
                                                {"False", false},
                                                {"TRUE", true},
                                                {"tRUE", "tRUE"},
                                                {"yes", "yes"},
                                                {"no", "no"},
                                                {"NO", "NO"},
                                                {"on", "on"},
                                                {"off", "off"},
                                                {"y", "y"},
                                                {"0", 0},
                                                {"-12", -12},
                                                {"+7", 7},
                                                {"007", 7},
                                                {"0x1F", 31},
                                                {"0o17", 15},
                                                {"0x", "0x"},
                                                {"0o8", "0o8"},
                                                {"1_000", "1_000"},
                                                {"1.10", 1.1},
                                                {"1.", 1.0},
                                                {".5", 0.5},
                                                {"-.5", -0.5},
                                                {"+1.5", 1.5},
                                                {"1e-4", 1e-4},
                                                {"2E+3", 2e3},
                                                {"1e3", 1e3},
                                                {".", "."},
                                                {"-", "-"},
                                                {"+", "+"},
                                                {"1e", "1e"},
                                                {"e3", "e3"},
                                                {"1e-", "1e-"},
                                                {"--1", "--1"},
                                                {"1.2.3", "1.2.3"},
                                                {"12:30", "12:30"},
                                                {"2026-11-20", "2026-11-20"},
                                                {"9223372036854775807", int64_t{9223372036854775807}},
                                                {"9223372036854775808", 9223372036854775808.0},
                                                {"-99999999999999999999", -99999999999999999999.0},
                                                {"1e999", INFINITY},
                                                {"-1e999", -INFINITY},
                                                {"1e-999", 0.0},
                                                {".inf", INFINITY},
                                                {"-.Inf", -INFINITY},
                                                {"inf", "inf"},
                                                {"nan", "nan"},
                                                {"infinity", "infinity"}};
  for (const auto& [text, value] : cases) {
    EXPECT_EQ(core_scalar(text), value) << text;
    EXPECT_EQ(core_scalar(text).type(), value.type()) << text;
  }
  EXPECT_TRUE(std::isnan(core_scalar(".nan").get<double>()));
}

}  // namespace
}  // namespace bitctl
