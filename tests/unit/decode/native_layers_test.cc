#include "decode/native_layers.h"

#include <gmock/gmock.h>

#include <cmath>
#include <random>

namespace bitctl {
namespace {

std::vector<float> random_floats(size_t count, unsigned seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal;
  std::vector<float> floats(count);
  for (float& value : floats) value = normal(random);
  return floats;
}

TEST(Normalize, RootMeanSquareAndLayerNorm) {
  for (const size_t size : {1, 15, 16, 100}) {
    const std::vector<float> x = random_floats(size, 4);
    NativeNorm norm{random_floats(size, 5), {}};
    std::vector<float> to(size);
    normalize(x, norm, 1e-5F, to.data());
    double squares = 0, mean = 0;
    for (const float value : x) squares += static_cast<double>(value) * value, mean += value;
    squares /= static_cast<double>(size), mean /= static_cast<double>(size);
    for (size_t i = 0; i < size; ++i)
      ASSERT_NEAR(to[i], x[i] / std::sqrt(squares + 1e-5) * norm.weight[i], 1e-5);
    norm.bias = random_floats(size, 6);
    normalize(x, norm, 1e-5F, to.data());
    for (size_t i = 0; i < size; ++i)
      ASSERT_NEAR(to[i],
                  (x[i] - mean) / std::sqrt(squares - mean * mean + 1e-5) * norm.weight[i] + norm.bias[i],
                  2e-4);
  }
}

TEST(Activate, IsWhatItsNameSays) {
  const auto check = [](Activation activation, auto exact) {
    for (const float x : {-200.0F, -88.0F, -10.0F, -1.0F, -1e-3F, 0.0F, 1e-3F, 1.0F, 10.0F, 100.0F}) {
      std::vector<float> gate(17, x), up(17, 0.5F);
      activate(activation, gate, nullptr);
      const double expected = exact(static_cast<double>(x));
      for (const float value : gate)
        ASSERT_NEAR(value, expected, 1e-6 * std::max(1.0, std::fabs(expected))) << x;
      gate.assign(17, x);
      activate(activation, gate, up.data());
      for (const float value : gate)
        ASSERT_NEAR(value, expected / 2, 1e-6 * std::max(1.0, std::fabs(expected)));
    }
  };
  check(Activation::silu, [](double x) { return x / (1 + std::exp(-x)); });
  check(Activation::relu2, [](double x) { return x > 0 ? x * x : 0; });
  check(Activation::gelu_tanh,
        [](double x) { return 0.5 * x * (1 + std::tanh(std::sqrt(2 / M_PI) * (x + 0.044715 * x * x * x))); });
}

TEST(Rotate, TurnsPairsHalfAHeadApart) {
  std::vector<float> head{1, 0, 0, 2, 7};  // the last dimension is not turned
  const float half = std::sqrt(0.5F);
  rotate(head.data(), std::vector<float>{0, half}, std::vector<float>{1, half});
  EXPECT_THAT(head, testing::Pointwise(testing::FloatNear(1e-6F), {0.0F, -2 * half, 1.0F, 2 * half, 7.0F}));
}

}  // namespace
}  // namespace bitctl
