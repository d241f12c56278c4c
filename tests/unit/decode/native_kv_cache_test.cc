#include "decode/native_kv_cache.h"

#include <gmock/gmock.h>

#include "safetensors/element.h"

namespace bitctl {
namespace {

TEST(NativeKvCache, EachHeadHasRowsOfItsOwn) {
  for (const KvType type : {KvType::f32, KvType::bf16}) {
    auto cache =
        NativeKvCache::reserve({.layers = 2, .kv_heads = 2, .positions = 3, .head_dim = 2, .type = type});
    ASSERT_TRUE(cache);
    // Digits: layer, keys or values, position, head, dimension. bf16 holds whole numbers up to 256.
    const auto number = [](size_t layer, size_t which, size_t position, size_t head, size_t dimension) {
      return static_cast<float>((layer * 2 + which) * 32 + position * 8 + head * 2 + dimension);
    };
    for (size_t layer = 0; layer < 2; ++layer)
      for (size_t position = 0; position < 3; ++position) {
        std::vector<float> both[2];
        for (size_t which = 0; which < 2; ++which)
          for (size_t head = 0; head < 2; ++head)
            for (size_t d = 0; d < 2; ++d) both[which].push_back(number(layer, which, position, head, d));
        cache->put(layer, position, both[0].data(), both[1].data());
      }
    for (size_t layer = 0; layer < 2; ++layer)
      for (size_t head = 0; head < 2; ++head)
        for (size_t which = 0; which < 2; ++which) {
          const AttentionRows all = cache->rows(layer, head);
          const void* rows = which == 0 ? all.keys : all.values;
          std::vector<float> floats(6), expected;
          read_floats(type == KvType::bf16 ? "BF16" : "F32", static_cast<const char*>(rows), 6,
                      floats.data());
          for (size_t position = 0; position < 3; ++position)
            for (size_t d = 0; d < 2; ++d) expected.push_back(number(layer, which, position, head, d));
          EXPECT_EQ(floats, expected);
        }
  }
}

TEST(NativeKvCache, IntegersHaveAScaleAPosition) {
  auto cache = NativeKvCache::reserve(
      {.layers = 2, .kv_heads = 2, .positions = 3, .head_dim = 2, .type = KvType::int8});
  ASSERT_TRUE(cache);
  const float keys[4] = {1, -0.5F, 254, 0}, values[4] = {0, 0, 3, INFINITY};
  cache->put(1, 2, keys, values);
  const AttentionRows first = cache->rows(1, 0), second = cache->rows(1, 1);
  const auto integer = [](const void* rows, size_t at) { return int{static_cast<const int8_t*>(rows)[at]}; };
  EXPECT_EQ(integer(first.keys, 4), 127);
  EXPECT_EQ(integer(first.keys, 5), -64);
  EXPECT_FLOAT_EQ(first.key_scales[2], 1 / 127.0F);
  EXPECT_EQ(integer(second.keys, 4), 127);
  EXPECT_FLOAT_EQ(second.key_scales[2], 2);
  EXPECT_EQ(integer(first.values, 4), 0);
  EXPECT_EQ(first.value_scales[2], 1);
  EXPECT_TRUE(std::isnan(second.value_scales[2])) << "infinity is not hidden";
  EXPECT_EQ(first.key_scales[1], 0) << "another position";
  EXPECT_EQ(cache->rows(0, 0).key_scales[2], 0) << "another layer";
}

TEST(NativeKvCache, TakesNoMemoryThatIsNotUsedAndRefusesWhatCannotBe) {
  EXPECT_TRUE(NativeKvCache::reserve({.layers = 64, .kv_heads = 32, .positions = 1 << 20, .head_dim = 128}));
  const auto never = NativeKvCache::reserve(
      {.layers = 4096, .kv_heads = size_t{1} << 31, .positions = size_t{1} << 31, .head_dim = 2});
  EXPECT_THAT(never.error().message, testing::HasSubstr("--max-context lowers it"));
}

}  // namespace
}  // namespace bitctl
