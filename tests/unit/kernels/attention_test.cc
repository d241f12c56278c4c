#include "kernels/attention.h"

#include <gtest/gtest.h>

#include "kernels/weights.h"

namespace bitctl {
namespace {

class Attention : public testing::TestWithParam<Isa> {};

std::vector<Isa> levels() {
  std::vector<Isa> found;
  for (const Isa isa : {Isa::scalar, Isa::avx2, Isa::avx512})
    if (isa <= machine_isa()) found.push_back(isa);
  return found;
}

INSTANTIATE_TEST_SUITE_P(Levels, Attention, testing::ValuesIn(levels()),
                         [](const auto& each) { return std::string(name_of(each.param)); });

struct Case {
  size_t heads, head_dim, begin, end;
  float softcap = 0;
  bool is_bf16 = false;
};

// Keys and values as matrices, a row a position; queries as one more, a row a head.
struct Operands {
  explicit Operands(const Case& c)
      : type(c.is_bf16 ? Matrix::Type::bf16 : Matrix::Type::f32),
        keys(type, c.end, c.head_dim, 1),
        values(type, c.end, c.head_dim, 2),
        queries(Matrix::Type::f32, c.heads, c.head_dim, 3),
        rows{keys.matrix().data, values.matrix().data, c.is_bf16, c.begin, c.end, c.head_dim} {}
  const float* query(size_t head) const {
    return static_cast<const float*>(queries.matrix().data) + head * rows.head_dim;
  }

  Matrix::Type type;
  Weights keys, values, queries;
  AttentionRows rows;
};

constexpr float kScale = 1.7F;

std::vector<double> reference(const Operands& of, const Case& c, size_t head) {
  std::vector<double> weights, out(c.head_dim);
  double total = 0;
  for (size_t j = c.begin; j < c.end; ++j) {
    double score = 0;
    for (size_t d = 0; d < c.head_dim; ++d) score += of.queries.value(head, d) * of.keys.value(j, d);
    score *= kScale;
    if (c.softcap != 0) score = c.softcap * std::tanh(score / c.softcap);
    total += weights.emplace_back(std::exp(score));
  }
  for (size_t j = c.begin; j < c.end; ++j)
    for (size_t d = 0; d < c.head_dim; ++d) out[d] += weights[j - c.begin] / total * of.values.value(j, d);
  return out;
}

TEST_P(Attention, IsTheSoftmaxInDoublePrecision) {
  std::vector<Case> cases = {
      {3, 64, 5, 700}, {7, 64, 0, 70, 2.5F}, {40, 32, 63, 130}, {1, 64, 0, 64, 0, true}};
  for (size_t head_dim = 1; head_dim <= 140; ++head_dim)
    cases.push_back({1 + head_dim % 5, head_dim, head_dim % 3, 3 + head_dim, 0, head_dim % 2 == 0});
  for (const Case& c : cases) {
    const Operands of(c);
    std::vector<float> to(c.heads * c.head_dim + 1, -77);
    attend(of.rows, of.query(0), c.heads, kScale, c.softcap, to.data(), GetParam());
    for (size_t head = 0; head < c.heads; ++head) {
      const std::vector<double> expected = reference(of, c, head);
      for (size_t d = 0; d < c.head_dim; ++d)
        ASSERT_NEAR(to[head * c.head_dim + d], expected[d], 3e-6)
            << "head_dim " << c.head_dim << " head " << head;
    }
    EXPECT_EQ(to.back(), -77) << "head_dim " << c.head_dim;
  }
}

TEST_P(Attention, AHeadDependsOnNothingBesideIt) {
  const Case c = {11, 72, 0, 150};
  const Operands of(c);
  std::vector<float> all(c.heads * c.head_dim), alone(c.head_dim);
  attend(of.rows, of.query(0), c.heads, kScale, 0, all.data(), GetParam());
  for (size_t head = 0; head < c.heads; ++head) {
    attend(of.rows, of.query(head), 1, kScale, 0, alone.data(), GetParam());
    EXPECT_EQ(std::memcmp(alone.data(), &all[head * c.head_dim], c.head_dim * sizeof(float)), 0) << head;
  }
}

TEST_P(Attention, LargeScoresDoNotOverflow) {
  const Case c = {2, 32, 0, 200};
  Operands of(c);
  for (size_t d = 0; d < c.head_dim; ++d) {
    of.keys.set(150, d, 40);
    of.queries.set(0, d, 40);
    of.queries.set(1, d, -40);
  }
  std::vector<float> to(c.heads * c.head_dim);
  attend(of.rows, of.query(0), c.heads, kScale, 0, to.data(), GetParam());
  for (size_t d = 0; d < c.head_dim; ++d) {
    EXPECT_EQ(to[d], static_cast<float>(of.values.value(150, d))) << "all of its weight";
    EXPECT_TRUE(std::isfinite(to[c.head_dim + d]));
  }
}

TEST_P(Attention, NaNIsNotHidden) {
  const Case c = {2, 32, 0, 90};
  Operands of(c);
  of.keys.set(70, 3, std::nanf(""));
  std::vector<float> to(c.heads * c.head_dim);
  attend(of.rows, of.query(0), c.heads, kScale, 0, to.data(), GetParam());
  for (const float value : to) EXPECT_TRUE(std::isnan(value));
}

}  // namespace
}  // namespace bitctl
