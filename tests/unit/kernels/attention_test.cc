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
  KvType kv = KvType::f32;
};

// Keys and values as matrices, a row a position; queries as one more, a row a head.
struct Operands {
  explicit Operands(const Case& c)
      : type(c.kv == KvType::int8   ? Matrix::Type::int8
             : c.kv == KvType::bf16 ? Matrix::Type::bf16
                                    : Matrix::Type::f32),
        keys(type, c.end, c.head_dim, 1),
        values(type, c.end, c.head_dim, 2),
        queries(Matrix::Type::f32, c.heads, c.head_dim, 3),
        rows{keys.matrix().data, values.matrix().data, c.kv, c.begin, c.end, c.head_dim} {
    if (c.kv != KvType::int8) return;
    for (size_t j = 0; j < c.end; ++j) {
      key_scales.push_back(keys.matrix().scales[j] / 127);
      value_scales.push_back(values.matrix().scales[j] / 127);
    }
    rows.key_scales = key_scales.data();
    rows.value_scales = value_scales.data();
  }
  // What a number of that row is multiplied by.
  static double scale(const float* scales, size_t row) { return scales != nullptr ? scales[row] : 1; }
  const float* query(size_t head) const {
    return static_cast<const float*>(queries.matrix().data) + head * rows.head_dim;
  }

  Matrix::Type type;
  Weights keys, values, queries;
  AttentionRows rows;
  std::vector<float> key_scales, value_scales;
};

constexpr float kScale = 1.7F;

std::vector<double> reference(const Operands& of, const Case& c, size_t head) {
  std::vector<double> weights, out(c.head_dim);
  double total = 0;
  for (size_t j = c.begin; j < c.end; ++j) {
    double score = 0;
    for (size_t d = 0; d < c.head_dim; ++d) score += of.queries.value(head, d) * of.keys.value(j, d);
    score *= kScale * Operands::scale(of.rows.key_scales, j);
    if (c.softcap != 0) score = c.softcap * std::tanh(score / c.softcap);
    total += weights.emplace_back(std::exp(score));
  }
  for (size_t j = c.begin; j < c.end; ++j)
    for (size_t d = 0; d < c.head_dim; ++d)
      out[d] +=
          weights[j - c.begin] / total * of.values.value(j, d) * Operands::scale(of.rows.value_scales, j);
  return out;
}

TEST_P(Attention, IsTheSoftmaxInDoublePrecision) {
  std::vector<Case> cases = {{3, 64, 5, 700},
                             {7, 64, 0, 70, 2.5F},
                             {40, 32, 63, 130},
                             {1, 64, 0, 64, 0, KvType::bf16},
                             {3, 64, 1, 600, 0, KvType::int8}};
  for (size_t head_dim = 1; head_dim <= 140; ++head_dim)
    cases.push_back({1 + head_dim % 5, head_dim, head_dim % 3, 3 + head_dim, 0, KvType(head_dim % 3)});
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

// Several threads take a part each; one takes them one after the other.
TEST_P(Attention, PartsGiveTheBitsOfTheWhole) {
  for (const KvType kv : {KvType::f32, KvType::int8}) {
    const Case c = {3, 40, 2, 2 + 2 * kAttentionPart + 7, 0, kv};
    const Operands of(c);
    std::vector<float> whole(c.heads * c.head_dim), joined(whole.size());
    attend(of.rows, of.query(0), c.heads, kScale, 0, whole.data(), GetParam());
    const size_t parts = attention_parts(of.rows);
    ASSERT_EQ(parts, 3);
    std::vector<AttentionState> states(parts * c.heads);
    std::vector<float> values(parts * whole.size());
    for (const size_t part : {2, 0, 1})
      attend_part(of.rows, part, of.query(0), c.heads, kScale, 0, &states[part * c.heads],
                  &values[part * whole.size()], GetParam());
    join_parts(parts, c.heads, c.head_dim, states.data(), values.data(), joined.data());
    EXPECT_EQ(std::memcmp(whole.data(), joined.data(), whole.size() * sizeof(float)), 0);
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
