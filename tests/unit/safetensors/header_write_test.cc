#include <gtest/gtest.h>

#include <ctime>

#include "safetensors/header.h"

namespace bitctl {
namespace {

using Metadata = std::vector<std::pair<std::string, std::string>>;

std::vector<TensorInfo> laid_out(std::vector<TensorInfo> tensors) {
  const auto status = lay_out(tensors);
  EXPECT_TRUE(status) << status.error().message;
  return tensors;
}

TEST(LayOut, SortsWideDtypesFirstThenByName) {
  const auto tensors = laid_out({{"b", "U8", {3}},
                                 {"z", "F32", {2}},
                                 {"a", "F32", {1}},
                                 {"h", "BF16", {1}},
                                 {"n", "I64", {}},
                                 {"e", "F32", {0}}});
  std::string order;
  for (const auto& tensor : tensors) {
    order += tensor.name;
    EXPECT_EQ(tensor.begin % (dtype_bits(tensor.dtype) / 8), 0u) << tensor.name;
  }
  EXPECT_EQ(order, "naezhb");
  EXPECT_EQ(tensors.back().begin, 8u + 4 + 0 + 8 + 2);
  EXPECT_EQ(tensors.back().end, 8u + 4 + 0 + 8 + 2 + 3);
}

TEST(LayOut, RefusesWhatHasNoSize) {
  std::vector<TensorInfo> unknown{{"a", "F31", {1}}};
  EXPECT_EQ(lay_out(unknown).error().message, "tensor \"a\": unknown dtype \"F31\"");
  std::vector<TensorInfo> huge{{"a", "U8", {int64_t{1} << 60}}};
  EXPECT_TRUE(lay_out(huge));
  for (char name = 'b'; name <= 'q'; ++name) huge.push_back({std::string(1, name), "U8", {int64_t{1} << 60}});
  EXPECT_EQ(lay_out(huge).error().message, "the tensors have more than 2^64 bytes");
}

TEST(BuildHeader, WritesCompactJsonPaddedToEightBytes) {
  const auto header = build_header(laid_out({{"w", "F32", {2, 2}}, {"b", "F16", {3}}}), {{"format", "pt"}});
  ASSERT_TRUE(header);
  EXPECT_EQ(header->size() % 8, 0u);
  EXPECT_EQ(header->substr(8, header->find_last_of('}') - 7),
            R"({"__metadata__":{"format":"pt"},"w":{"dtype":"F32","shape":[2,2],"data_offsets":[0,16]},)"
            R"("b":{"dtype":"F16","shape":[3],"data_offsets":[16,22]}})");
}

TEST(BuildHeader, FillsARegion) {
  const auto header = build_header(laid_out({{"w", "F32", {2, 2}}}), {}, 4096);
  ASSERT_TRUE(header);
  EXPECT_EQ(header->size(), 4096u);
  EXPECT_EQ(header->back(), ' ');
  EXPECT_TRUE(parse_header(*header, 4096 + 16));
  EXPECT_EQ(build_header(laid_out({{"w", "F32", {2, 2}}}), {}, 64).error().message,
            "a header of 65 bytes does not fit into 64");
}

TEST(BuildHeader, WhatItWritesIsReadBack) {
  const auto tensors = laid_out({{"quote\"back\\slash\nline", "F64", {1}},
                                 {"\xc3\xa9\xf0\x9f\x8c\x8d", "BOOL", {5}},
                                 {"empty", "F32", {0, 9}},
                                 {"scalar", "C64", {}}});
  const Metadata metadata = {{"format", "pt"}, {"bitctl.state", "{\"epoch\": 1}\x7f"}};
  const auto text = build_header(tensors, metadata);
  ASSERT_TRUE(text);
  const auto header = parse_header(*text, text->size() + tensors.back().end);
  ASSERT_TRUE(header) << header.error().message;
  EXPECT_EQ(header->tensors, tensors);
  EXPECT_EQ(header->metadata, metadata);
  EXPECT_EQ(build_header(header->tensors, header->metadata), *text);
}

struct Unwritable {
  const char* name;
  std::vector<TensorInfo> tensors;
  Metadata metadata;
  const char* reason;
};

class UnwritableHeader : public testing::TestWithParam<Unwritable> {};

TEST_P(UnwritableHeader, IsRefused) {
  const auto header = build_header(GetParam().tensors, GetParam().metadata);
  ASSERT_FALSE(header);
  EXPECT_EQ(header.error().kind, ErrorKind::invalid);
  EXPECT_NE(header.error().message.find(GetParam().reason), std::string::npos) << header.error().message;
}

INSTANTIATE_TEST_SUITE_P(
    Each, UnwritableHeader,
    testing::Values(
        Unwritable{
            "reserved_name", {{"__metadata__", "U8", {1}, 0, 1}}, {}, "must not be called __metadata__"},
        Unwritable{"empty_name", {{"", "U8", {1}, 0, 1}}, {}, "empty name"},
        Unwritable{"long_name", {{std::string(4097, 'n'), "U8", {1}, 0, 1}}, {}, "4097 bytes"},
        Unwritable{"nul_in_name", {{std::string("a\0", 2), "U8", {1}, 0, 1}}, {}, "a NUL byte"},
        Unwritable{"name_not_utf8", {{"\xff", "U8", {1}, 0, 1}}, {}, "tensor name \"\\xff\" is not UTF-8"},
        Unwritable{"name_twice",
                   {{"a", "U8", {1}, 0, 1}, {"a", "U8", {1}, 1, 2}},
                   {},
                   "tensor \"a\" is there twice"},
        Unwritable{"unknown_dtype", {{"a", "Q4", {1}, 0, 1}}, {}, "unknown dtype \"Q4\""},
        Unwritable{"negative_size", {{"a", "U8", {-1}, 0, 1}}, {}, "negative size in shape [-1]"},
        Unwritable{
            "size_mismatch", {{"a", "F32", {2}, 0, 4}}, {}, "takes 8 bytes, its data_offsets give it 4"},
        Unwritable{"hole", {{"a", "U8", {1}, 0, 1}, {"b", "U8", {1}, 2, 3}}, {}, "a hole of 1 bytes"},
        Unwritable{
            "not_in_data_order", {{"a", "U8", {1}, 1, 2}, {"b", "U8", {1}, 0, 1}}, {}, "a hole of 1 bytes"},
        Unwritable{"metadata_twice", {}, {{"k", "1"}, {"k", "2"}}, "metadata key \"k\" is there twice"},
        Unwritable{"metadata_not_utf8", {}, {{"k", "\xed\xa0\x80"}}, "metadata value"},
        Unwritable{"too_large", {}, {{"k", std::string(100'000'000, ' ')}}, "more than 100000000"}),
    [](const auto& info) { return info.param.name; });

// Seconds of processor time to lay out, write, parse and look up so many tensors.
double work_for(int count) {
  std::vector<TensorInfo> tensors;
  for (int i = 0; i < count; ++i)
    tensors.push_back({"model.layers." + std::to_string(i) + ".weight", "F32", {4, 4}});
  const std::clock_t started = std::clock();
  EXPECT_TRUE(lay_out(tensors));
  const auto text = build_header(tensors, {});
  const auto header = parse_header(*text, text->size() + tensors.back().end);
  EXPECT_TRUE(header);
  for (const auto& tensor : tensors) EXPECT_NE(header->find(tensor.name), nullptr);
  return static_cast<double>(std::clock() - started) / CLOCKS_PER_SEC;
}

// A hundred thousand tensors are a large optimizer's; a header must not cost the square of them.
TEST(Header, WorkGrowsWithTheTensorsNotTheirSquare) {
  work_for(1000);
  EXPECT_LT(work_for(40'000), 8 * work_for(10'000));
}

}  // namespace
}  // namespace bitctl
