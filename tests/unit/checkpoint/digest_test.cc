#include "checkpoint/digest.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <random>

namespace bitctl {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;
using Values = TensorDigests::Values;

// Tensors in this order behind each other, as a header lists them.
std::vector<TensorInfo> tiled(const std::vector<std::pair<std::string, uint64_t>>& dtypes_and_bytes) {
  std::vector<TensorInfo> tensors;
  uint64_t at = 0;
  for (const auto& [dtype, bytes] : dtypes_and_bytes) {
    tensors.push_back({"t", dtype, {}, at, at + bytes});
    at += bytes;
  }
  return tensors;
}

std::vector<const TensorInfo*> pointers_to(const std::vector<TensorInfo>& tensors) {
  std::vector<const TensorInfo*> pointers;
  for (const TensorInfo& tensor : tensors) pointers.push_back(&tensor);
  return pointers;
}

TEST(TensorDigests, AreThoseOfTheWholeTensorsHoweverTheBytesCome) {
  const auto tensors = tiled({{"U8", 0},
                              {"F32", 4},
                              {"U8", 0},
                              {"F32", 100'000},
                              {"U8", 3},
                              {"F64", 300'000},
                              {"U8", 1},
                              {"U8", 0}});
  const uint64_t bytes = tensors.back().end;
  std::mt19937_64 random(1);
  std::string data(bytes, '\0');
  for (char& c : data) c = static_cast<char>(random());
  for (int round = 0; round < 50; ++round) {
    TensorDigests digests(pointers_to(tensors), data.data(), Values::ignored);
    for (uint64_t at = 0; at < bytes;) {
      at = std::min<uint64_t>(bytes, at + random() % (round < 25 ? 200'000 : 9'000));
      digests.advance(at);
      for (size_t i = 0; i < tensors.size(); ++i)
        EXPECT_EQ(i < digests.done().size(), tensors[i].end <= at) << i << " at " << at;
    }
    ASSERT_EQ(digests.done().size(), tensors.size());
    for (size_t i = 0; i < tensors.size(); ++i)
      EXPECT_EQ(digests.done()[i], digest_of({data.data() + tensors[i].begin, tensors[i].bytes()})) << i;
    EXPECT_THAT(digests.non_finite(), IsEmpty());
  }
}

// A tensor that begins at an odd offset, and blocks that cut its elements.
TEST(TensorDigests, FindAValueThatABlockCuts) {
  const auto tensors = tiled({{"U8", 3}, {"F32", 4 * 40'000}, {"F32", 4 * 10}});
  const uint32_t nan = 0x7fc00000;
  for (const uint64_t element : {0, 1, 20'000, 39'999}) {
    std::string data(tensors.back().end, '\0');
    std::memcpy(data.data() + 3 + element * 4, &nan, 4);
    for (uint64_t cut = 3 + element * 4; cut <= 3 + element * 4 + 4; ++cut) {
      TensorDigests digests(pointers_to(tensors), data.data(), Values::checked);
      digests.advance(cut);
      digests.advance(data.size());
      EXPECT_THAT(digests.non_finite(), ElementsAre(1)) << element << " cut at " << cut;
    }
  }
}

}  // namespace
}  // namespace bitctl
