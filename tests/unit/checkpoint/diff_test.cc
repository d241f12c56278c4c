#include "checkpoint/diff.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <map>

#include "temporary_folder.h"
#include "tensor_step.h"

namespace bitctl {
namespace {

using testing::HasSubstr;

class DiffSteps : public testing::Test {
 protected:
  StepFolder folder(uint64_t step) { return {step, folder_ / step_folder_name(step)}; }
  void save(uint64_t step, const std::vector<TestTensor>& tensors) {
    const auto saved = save_tensors(folder_.path(), step, tensors);
    ASSERT_TRUE(saved) << saved.error().message;
  }
  std::map<std::string, TensorChange> diff() {
    std::map<std::string, TensorChange> changes;
    const auto status =
        diff_steps(folder(1), folder(2), [&](const TensorChange& change) { changes[change.name] = change; });
    EXPECT_TRUE(status) << status.error().message;
    return changes;
  }
  void flip(uint64_t step, std::streamoff byte) {
    std::fstream file(folder(step).path + "/model.safetensors",
                      std::ios::in | std::ios::out | std::ios::binary);
    file.seekp(byte);
    file.put('!');
  }
  TemporaryFolder folder_;
};

template <typename T>
std::string raw(const std::vector<T>& values) {
  return {reinterpret_cast<const char*>(values.data()), values.size() * sizeof(T)};
}

TEST_F(DiffSteps, NormsAreThoseOfTheDifference) {
  save(1, {floats("w", {2, 2}, {1, 2, 3, 4}), floats("b", {1}, {5})});
  save(2, {floats("w", {2, 2}, {1, 5, 3, 0}), floats("b", {1}, {5})});
  auto changes = diff();
  const TensorChange& w = changes.at("w");
  EXPECT_FALSE(w.same);
  EXPECT_EQ(w.changed, 2u);
  EXPECT_DOUBLE_EQ(w.delta->norm, 5);
  EXPECT_DOUBLE_EQ(*w.delta->norm_of_a, std::sqrt(30.0));
  EXPECT_DOUBLE_EQ(w.delta->max, 4);
  EXPECT_TRUE(changes.at("b").same);
  EXPECT_EQ(changes.at("b").delta->norm, 0);
}

TEST_F(DiffSteps, ANaNIsCountedAndNotSpread) {
  save(1, {floats("w", {4}, {1, NAN, 2, 3})});
  save(2, {floats("w", {4}, {1, NAN, NAN, 5})});
  const TensorChange w = diff().at("w");
  EXPECT_EQ(w.a->nan, 1u);
  EXPECT_EQ(w.b->nan, 2u);
  EXPECT_EQ(w.changed, 2u);
  EXPECT_DOUBLE_EQ(w.delta->norm, 2);
}

TEST_F(DiffSteps, ANaNOfATensorThatIsTheSameIsCountedToo) {
  const TestTensor w = floats("w", {2}, {NAN, -INFINITY});
  save(1, {w});
  save(2, {w});
  const TensorChange change = diff().at("w");
  EXPECT_TRUE(change.same);
  EXPECT_EQ(change.a->nan, 1u);
  EXPECT_EQ(change.b->infinite, 1u);
}

TEST_F(DiffSteps, TellsWhatIsNewGoneReshapedOrOfAnotherDtype) {
  save(1, {floats("gone", {1}, {1}), floats("reshaped", {2}, {1, 2}), floats("cast", {2}, {1, 3})});
  save(2, {floats("new", {1}, {1}),
           floats("reshaped", {2, 1}, {1, 2}),
           {"cast", "BF16", {2}, raw<uint16_t>({bf16_of_float(1), bf16_of_float(2)})}});
  auto changes = diff();
  EXPECT_EQ(changes.size(), 4u);
  EXPECT_FALSE(changes.at("gone").b);
  EXPECT_FALSE(changes.at("new").a);
  EXPECT_FALSE(changes.at("reshaped").same);
  EXPECT_FALSE(changes.at("reshaped").delta);
  EXPECT_FALSE(changes.at("cast").same);
  EXPECT_FALSE(changes.at("cast").changed);
  EXPECT_DOUBLE_EQ(changes.at("cast").delta->norm, 1);
}

// 2^62 and 2^62 + 1 are the same double.
TEST_F(DiffSteps, WholeNumbersOf64BitsAreExact) {
  const int64_t big = int64_t{1} << 62;
  save(1, {{"i", "I64", {2}, raw<int64_t>({big, -big})}, {"u", "U64", {1}, raw<uint64_t>({UINT64_MAX})}});
  save(2, {{"i", "I64", {2}, raw<int64_t>({big + 1, -big})}, {"u", "U64", {1}, raw<uint64_t>({0})}});
  auto changes = diff();
  EXPECT_DOUBLE_EQ(changes.at("i").delta->max, 1);
  EXPECT_EQ(changes.at("i").changed, 1u);
  EXPECT_DOUBLE_EQ(changes.at("u").delta->max, 0x1p64);
}

TEST_F(DiffSteps, ABigTensorIsReadInPieces) {
  std::vector<float> values(600000, 1);
  save(1, {floats("w", {600000}, values)});
  values[0] = 2;
  values[599999] = 4;
  save(2, {floats("w", {600000}, values)});
  const TensorChange w = diff().at("w");
  EXPECT_EQ(w.changed, 2u);
  EXPECT_DOUBLE_EQ(w.delta->norm, std::sqrt(10.0));
}

TEST_F(DiffSteps, DamageIsNamed) {
  save(1, {floats("w", {2}, {1, 2})});
  save(2, {floats("w", {2}, {1, 3})});
  flip(2, 4099);
  const auto status = diff_steps(folder(1), folder(2), [](const TensorChange&) {});
  ASSERT_FALSE(status);
  EXPECT_EQ(status.error().kind, ErrorKind::damaged);
  EXPECT_THAT(status.error().message, HasSubstr("step-000000002/model.safetensors: tensor w does not match"));
}

TEST_F(DiffSteps, ATensorIsTheSameInAnotherPartOfTheModel) {
  const TestTensor frozen = floats("f", {2}, {1, 2});
  ASSERT_TRUE(save_files(folder_.path(), 1,
                         {{"model-00001-of-00002.safetensors", {frozen}},
                          {"model-00002-of-00002.safetensors", {floats("w", {1}, {1})}}}));
  save(2, {frozen, floats("w", {1}, {3})});
  const auto changes = diff();
  EXPECT_EQ(changes.size(), 2u);
  EXPECT_TRUE(changes.at("f").same);
  EXPECT_DOUBLE_EQ(changes.at("w").delta->norm, 2);
}

}  // namespace
}  // namespace bitctl
