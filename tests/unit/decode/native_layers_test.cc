#include "decode/native_layers.h"

#include <gmock/gmock.h>

#include <cmath>
#include <random>

#include "safetensors/element.h"

namespace bitctl {
namespace {

std::vector<float> random_floats(size_t count, unsigned seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal;
  std::vector<float> floats(count);
  for (float& value : floats) value = normal(random);
  return floats;
}

std::vector<double> softmax_mix(const std::vector<float>& keys, const std::vector<float>& values,
                                const float* query, size_t begin, size_t end, size_t head_dim, double scale,
                                double softcap) {
  std::vector<double> weights, mixed(head_dim);
  double total = 0;
  for (size_t p = begin; p < end; ++p) {
    double score = 0;
    for (size_t d = 0; d < head_dim; ++d) score += static_cast<double>(query[d]) * keys[p * head_dim + d];
    score *= scale;
    if (softcap != 0) score = softcap * std::tanh(score / softcap);
    weights.push_back(std::exp(score));
    total += weights.back();
  }
  for (size_t p = begin; p < end; ++p)
    for (size_t d = 0; d < head_dim; ++d) mixed[d] += weights[p - begin] / total * values[p * head_dim + d];
  return mixed;
}

struct Case {
  size_t head_dim, heads, begin, end;
  float scale, softcap;
};

class Attend : public testing::TestWithParam<Case> {};

TEST_P(Attend, IsTheSoftmaxInDoublePrecision) {
  const auto [head_dim, heads, begin, end, scale, softcap] = GetParam();
  std::vector<float> keys = random_floats(end * head_dim, 1), values = random_floats(end * head_dim, 2);
  const std::vector<float> queries = random_floats(heads * head_dim, 3);
  for (const bool is_bf16 : {false, true}) {
    std::vector<uint16_t> key_halves(keys.size()), value_halves(values.size());
    if (is_bf16) {
      for (auto [floats, halves] : {std::pair(&keys, &key_halves), std::pair(&values, &value_halves)}) {
        write_floats("BF16", floats->data(), floats->size(), reinterpret_cast<char*>(halves->data()));
        read_floats("BF16", reinterpret_cast<const char*>(halves->data()), halves->size(), floats->data());
      }
    }
    const void* key_rows = is_bf16 ? static_cast<const void*>(key_halves.data()) : keys.data();
    const void* value_rows = is_bf16 ? static_cast<const void*>(value_halves.data()) : values.data();
    std::vector<float> mixed(queries.size(), NAN);
    attend({key_rows, value_rows, is_bf16, begin, end, head_dim}, queries.data(), heads, scale, softcap,
           mixed.data());
    for (size_t head = 0; head < heads; ++head) {
      const auto expected =
          softmax_mix(keys, values, &queries[head * head_dim], begin, end, head_dim, scale, softcap);
      for (size_t d = 0; d < head_dim; ++d)
        ASSERT_NEAR(mixed[head * head_dim + d], expected[d], 5e-6) << head << ' ' << d << ' ' << is_bf16;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(
    Shapes, Attend,
    testing::Values(Case{64, 3, 0, 1, 0.125F, 0}, Case{64, 3, 0, 200, 0.125F, 0},
                    Case{20, 1, 5, 70, 0.3F, 0},  // neither dimensions nor positions fill the vectors
                    Case{2, 1, 0, 129, 1, 0}, Case{128, 40, 63, 64, 0.1F, 0},  // more heads than at a time
                    Case{16, 2, 0, 100, 3, 5}, Case{48, 2, 10, 74, 20, 0}));   // scores of hundreds

TEST(Attend, FarApartScoresNeitherOverflowNorVanish) {
  const std::vector<float> keys{-1, -1, 1, 1}, values{1, 2, 3, 4}, query{5000, 5000};
  float mixed[2];
  attend({keys.data(), values.data(), false, 0, 2, 2}, query.data(), 1, 1, 0, mixed);
  EXPECT_THAT(mixed, testing::ElementsAre(3, 4));
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
