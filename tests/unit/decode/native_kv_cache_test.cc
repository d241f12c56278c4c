#include "decode/native_kv_cache.h"

#include <gmock/gmock.h>

#include "safetensors/element.h"

namespace bitctl {
namespace {

TEST(NativeKvCache, EachHeadHasRowsOfItsOwn) {
  for (const bool is_bf16 : {false, true}) {
    auto cache = NativeKvCache::reserve(
        {.layers = 2, .kv_heads = 2, .positions = 3, .head_dim = 2, .is_bf16 = is_bf16});
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
          const void* rows = which == 0 ? cache->keys(layer, head) : cache->values(layer, head);
          std::vector<float> floats(6), expected;
          read_floats(is_bf16 ? "BF16" : "F32", static_cast<const char*>(rows), 6, floats.data());
          for (size_t position = 0; position < 3; ++position)
            for (size_t d = 0; d < 2; ++d) expected.push_back(number(layer, which, position, head, d));
          EXPECT_EQ(floats, expected);
        }
  }
}

TEST(NativeKvCache, TakesNoMemoryThatIsNotUsedAndRefusesWhatCannotBe) {
  EXPECT_TRUE(NativeKvCache::reserve({.layers = 64, .kv_heads = 32, .positions = 1 << 20, .head_dim = 128}));
  const auto never = NativeKvCache::reserve(
      {.layers = 4096, .kv_heads = size_t{1} << 31, .positions = size_t{1} << 31, .head_dim = 2});
  EXPECT_THAT(never.error().message, testing::HasSubstr("--max-context lowers it"));
}

}  // namespace
}  // namespace bitctl
