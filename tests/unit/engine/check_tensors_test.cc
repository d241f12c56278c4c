#include "unit/engine/engine_fixture.h"

namespace bitctl {
namespace {

// Empty where there is nothing to say against them.
std::string check(std::vector<OwnedTensor> tensors) {
  std::vector<bitctl_tensor> views;
  for (auto& tensor : tensors) views.push_back(tensor.view());
  bitctl_engine_error error;
  return the_engine().check_tensors(views.data(), views.size(), &error) != 0 ? error.text : "";
}

TEST(CheckTensors, KnowsEveryDtypeOfTorch) {
  const std::pair<const char*, size_t> dtypes[] = {
      {"BOOL", 1},    {"U8", 1},      {"I8", 1},          {"I16", 2},         {"U16", 2},
      {"I32", 4},     {"U32", 4},     {"I64", 8},         {"U64", 8},         {"F16", 2},
      {"BF16", 2},    {"F32", 4},     {"F64", 8},         {"C64", 8},         {"F8_E5M2", 1},
      {"F8_E4M3", 1}, {"F8_E8M0", 1}, {"F8_E5M2FNUZ", 1}, {"F8_E4M3FNUZ", 1},
  };
  for (const auto& [dtype, size] : dtypes) {
    EXPECT_EQ(check({{"w", dtype, {2, 3}, std::string(6 * size, '\0')}}), "") << dtype;
    EXPECT_EQ(check({{"w", dtype, {}, std::string(size, '\0')}}), "") << dtype;
    EXPECT_EQ(check({{"w", dtype, {0, 3}, ""}}), "") << dtype;
    const std::string lie = check({{"w", dtype, {2, 3}, std::string(6 * size + 1, '\0')}});
    EXPECT_EQ(lie, "torch: tensor \"w\": " + std::string(dtype) + " [2, 3] takes " +
                       std::to_string(6 * size) + " bytes, the file gives it " +
                       std::to_string(6 * size + 1));
  }
  EXPECT_EQ(check({{"w", "F4", {2, 4}, "1234"}}), "");
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
  EXPECT_EQ(check({good, GetParam().tensor, good}), expected);
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
    const std::string error = check({{"w", "F32", shape, "1234"}});
    EXPECT_EQ(error.rfind("torch: tensor \"w\": F32 [", 0), 0u) << error;
    EXPECT_EQ(error.find('\n'), std::string::npos);
  }
}

TEST(CheckTensors, AnErrorIsOneLineThatFits) {
  std::vector<OwnedTensor> tensors;
  tensors.push_back({std::string(5000, 'n'), "F32", {1}, "123"});
  tensors[0].name.push_back('\n');
  const std::string error = check(std::move(tensors));
  EXPECT_LT(error.size(), sizeof(bitctl_engine_error));
  EXPECT_EQ(error.find('\n'), std::string::npos);
}

}  // namespace
}  // namespace bitctl
