#include <cstring>

#include "unit/engine/engine_fixture.h"

namespace bitctl {
namespace {

struct Answer {
  std::string error;  // empty: none
  std::vector<uint8_t> non_finite;
};

Answer check(std::vector<OwnedTensor> tensors) {
  std::vector<bitctl_tensor> views;
  for (auto& tensor : tensors) views.push_back(tensor.view());
  Answer answer{"", std::vector<uint8_t>(tensors.size(), 77)};
  bitctl_engine_error error;
  if (the_engine().check_tensors(views.data(), views.size(), answer.non_finite.data(), &error) != 0)
    answer.error = error.text;
  return answer;
}

TEST(CheckTensors, KnowsEveryDtypeOfTorch) {
  const std::pair<const char*, size_t> dtypes[] = {
      {"BOOL", 1},    {"U8", 1},      {"I8", 1},          {"I16", 2},         {"U16", 2},
      {"I32", 4},     {"U32", 4},     {"I64", 8},         {"U64", 8},         {"F16", 2},
      {"BF16", 2},    {"F32", 4},     {"F64", 8},         {"C64", 8},         {"F8_E5M2", 1},
      {"F8_E4M3", 1}, {"F8_E8M0", 1}, {"F8_E5M2FNUZ", 1}, {"F8_E4M3FNUZ", 1},
  };
  for (const auto& [dtype, size] : dtypes) {
    EXPECT_EQ(check({{"w", dtype, {2, 3}, std::string(6 * size, '\0')}}).error, "") << dtype;
    EXPECT_EQ(check({{"w", dtype, {}, std::string(size, '\0')}}).error, "") << dtype;
    EXPECT_EQ(check({{"w", dtype, {0, 3}, ""}}).error, "") << dtype;
    const std::string lie = check({{"w", dtype, {2, 3}, std::string(6 * size + 1, '\0')}}).error;
    EXPECT_EQ(lie, "torch: tensor \"w\": " + std::string(dtype) + " [2, 3] takes " +
                       std::to_string(6 * size) + " bytes, the file gives it " +
                       std::to_string(6 * size + 1));
  }
  EXPECT_EQ(check({{"w", "F4", {2, 4}, "1234"}}).error, "");
}

struct Bad {
  const char* name;
  OwnedTensor tensor;
  const char* error;
};

class BadTensor : public testing::TestWithParam<Bad> {};

TEST_P(BadTensor, IsRefusedByName) {
  const OwnedTensor good{"good", "F32", {1}, std::string(4, '\0')};
  std::string expected = GetParam().error;
  if (const size_t at = expected.find("VERSION"); at != std::string::npos)
    expected.replace(at, 7, the_engine().torch_version);
  EXPECT_EQ(check({good, GetParam().tensor, good}).error, expected);
}

INSTANTIATE_TEST_SUITE_P(
    Each, BadTensor,
    testing::Values(Bad{"too_few_bytes",
                        {"w", "F32", {2, 3}, std::string(20, '\0')},
                        "torch: tensor \"w\": F32 [2, 3] takes 24 bytes, the file gives it 20"},
                    Bad{"another_dtype",
                        {"w", "F32", {8}, std::string(16, '\0')},
                        "torch: tensor \"w\": F32 [8] takes 32 bytes, the file gives it 16"},
                    Bad{"six_bits",
                        {"w", "F6_E2M3", {4}, "123"},
                        "torch: tensor \"w\": libtorch VERSION has no dtype F6_E2M3"},
                    Bad{"no_dtype",
                        {"w", "\x1b[2J", {4}, "1234"},
                        "torch: tensor \"w\": libtorch VERSION has no dtype ^[[2J"},
                    Bad{"odd_pairs",
                        {"w", "F4", {2, 3}, "123"},
                        "torch: tensor \"w\": F4 [2, 3] has an odd last dimension, F4 is stored in pairs"}),
    [](const auto& info) { return info.param.name; });

TEST(CheckTensors, ShapesThatLibtorchRefusesCarryItsWords) {
  for (const std::vector<int64_t>& shape :
       {std::vector<int64_t>{-1}, {int64_t{1} << 62, 4}, {int64_t{1} << 32, int64_t{1} << 32, 2}}) {
    const std::string error = check({{"w", "F32", shape, "1234"}}).error;
    EXPECT_EQ(error.rfind("torch: tensor \"w\": F32 [", 0), 0u) << error;
    EXPECT_EQ(error.find('\n'), std::string::npos);
  }
}

TEST(CheckTensors, AnErrorIsOneLineThatFits) {
  const std::string error = check({{std::string(5000, 'n') + "\n", "F32", {1}, "123"}}).error;
  EXPECT_LT(error.size(), sizeof(bitctl_engine_error));
  EXPECT_EQ(error.find('\n'), std::string::npos);
}

template <typename Word>
std::string repeated(Word word, size_t count) {
  std::string bytes(count * sizeof word, '\0');
  for (size_t i = 0; i < count; ++i) std::memcpy(bytes.data() + i * sizeof word, &word, sizeof word);
  return bytes;
}

// Every position of one bad value among good ones, across blocks and off the alignment.
template <typename Word>
void expect_found(const char* dtype, size_t words_per_element, const std::vector<Word>& bad,
                  const std::vector<Word>& good) {
  constexpr size_t kWords = 50'000;
  const auto shape = static_cast<int64_t>(kWords / words_per_element);
  for (const Word word : good)
    EXPECT_EQ(check({{"w", dtype, {shape}, repeated(word, kWords), 1}}).non_finite[0], 0)
        << dtype << " " << uint64_t{word};
  for (const Word word : bad)
    for (const size_t at : {size_t{0}, size_t{1}, size_t{8191}, size_t{8192}, kWords / 2 + 1, kWords - 1}) {
      OwnedTensor tensor{"w", dtype, {shape}, repeated(good[0], kWords), at % 2};
      std::memcpy(tensor.bytes.data() + at * sizeof word, &word, sizeof word);
      const Answer answer = check({tensor});
      EXPECT_EQ(answer.error, "");
      EXPECT_EQ(answer.non_finite[0], 1) << dtype << " " << uint64_t{word} << " at " << at;
    }
}

TEST(CheckTensors, FindsNanAndInfinityInEveryFloat) {
  // good: one, zero, minus zero, the smallest subnormal, the largest finite of both signs.
  expect_found<uint64_t>(
      "F64", 1, {0x7ff0000000000000, 0xfff0000000000000, 0x7ff8000000000000, 0x7ff0000000000001},
      {0x3ff0000000000000, 0, 0x8000000000000000, 1, 0x7fefffffffffffff, 0xffefffffffffffff});
  const std::vector<uint32_t> bad32 = {0x7f800000, 0xff800000, 0x7fc00000, 0x7f800001, 0xffffffff};
  const std::vector<uint32_t> good32 = {0x3f800000, 0, 0x80000000, 1, 0x7f7fffff, 0xff7fffff};
  expect_found<uint32_t>("F32", 1, bad32, good32);
  expect_found<uint32_t>("C64", 2, bad32, good32);
  expect_found<uint16_t>("BF16", 1, {0x7f80, 0xff80, 0x7fc0, 0x7f81}, {0x3f80, 0, 0x8000, 1, 0x7f7f, 0xff7f});
  expect_found<uint16_t>("F16", 1, {0x7c00, 0xfc00, 0x7e00, 0x7c01}, {0x3c00, 0, 0x8000, 1, 0x7bff, 0xfbff});
  expect_found<uint8_t>("F8_E5M2", 1, {0x7c, 0xfc, 0x7d, 0x7f}, {0x3c, 0, 0x80, 1, 0x7b, 0xfb});
  expect_found<uint8_t>("F8_E4M3", 1, {0x7f, 0xff}, {0x38, 0, 0x80, 1, 0x7e, 0xfe});
  expect_found<uint8_t>("F8_E5M2FNUZ", 1, {0x80}, {0x40, 0, 1, 0x7f, 0xff});
  expect_found<uint8_t>("F8_E4M3FNUZ", 1, {0x80}, {0x40, 0, 1, 0x7f, 0xff});
  expect_found<uint8_t>("F8_E8M0", 1, {0xff}, {0x7f, 0, 0xfe});
}

TEST(CheckTensors, IntegersAreAlwaysFinite) {
  for (const char* dtype : {"U8", "I8", "BOOL", "I16", "U16", "I32", "U32", "I64", "U64"}) {
    const size_t size = std::string(dtype).ends_with("64")   ? 8
                        : std::string(dtype).ends_with("32") ? 4
                        : std::string(dtype).ends_with("16") ? 2
                                                             : 1;
    EXPECT_EQ(check({{"w", dtype, {4}, std::string(4 * size, '\xff')}}).non_finite[0], 0) << dtype;
  }
}

TEST(CheckTensors, TellsFiveThousandTensorsApart) {
  std::vector<OwnedTensor> tensors;
  std::vector<uint8_t> expected;
  for (int i = 0; i < 5000; ++i) {
    const bool bad = i % 7 == 3;
    tensors.push_back({"t" + std::to_string(i), "BF16", {16}, repeated<uint16_t>(bad ? 0x7fc0 : 0x3f80, 16)});
    expected.push_back(bad);
  }
  const Answer answer = check(tensors);
  EXPECT_EQ(answer.error, "");
  EXPECT_EQ(answer.non_finite, expected);
}

}  // namespace
}  // namespace bitctl
