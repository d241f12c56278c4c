#include "safetensors/header.h"

#include <gtest/gtest.h>

#include <random>

#include "unit/safetensors/sample_files.h"

namespace bitctl {
namespace {

Result<TensorHeader> parse(const std::string& file, Strictness strictness = Strictness::strict) {
  const auto size = header_size(file, file.size());
  if (!size) return tl::unexpected(size.error());
  return parse_header(file, file.size(), strictness);
}

std::string one(const std::string& fields, size_t data_bytes = 4) {
  return file_of("{\"a\":{" + fields + "}}", data_bytes);
}

const std::string kGood = "\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]";

struct Bad {
  const char* name;
  std::string file;
  const char* reason;         // a part of the message
  bool compat_takes = false;  // everything else is refused by both
};

class BadHeader : public testing::TestWithParam<Bad> {};

TEST_P(BadHeader, IsRefusedWithItsOwnReason) {
  const auto header = parse(GetParam().file);
  ASSERT_FALSE(header);
  EXPECT_EQ(header.error().kind, ErrorKind::damaged);
  EXPECT_NE(header.error().message.find(GetParam().reason), std::string::npos) << header.error().message;
  EXPECT_EQ(parse(GetParam().file, Strictness::compat).has_value(), GetParam().compat_takes);
}

std::string name_of(const testing::TestParamInfo<Bad>& info) { return info.param.name; }

std::string big_endian(uint64_t n) {
  const uint64_t swapped = __builtin_bswap64(n);
  return with_length(swapped, std::string(64, ' '));
}

INSTANTIATE_TEST_SUITE_P(Length, BadHeader,
                         testing::Values(Bad{"empty", "", "0 bytes, too short"},
                                         Bad{"seven_bytes", "1234567", "7 bytes, too short"},
                                         Bad{"zero", with_length(0, "{}"), "header of 0 bytes"},
                                         Bad{"one", with_length(1, "{}"), "header of 1 bytes"},
                                         Bad{"over_the_limit", with_length(100'000'001, "{}"),
                                             "more than 100000000: this is no safetensors file"},
                                         Bad{"overflows", with_length(UINT64_MAX, "{}"),
                                             "more than 100000000: this is no safetensors file"},
                                         Bad{"beyond_the_file", with_length(3, "{}"), "in a file of 10"},
                                         Bad{"big_endian", big_endian(64), "its length is big-endian"},
                                         Bad{"cuts_the_json", with_length(5, "{\"a\":1}"), "header, byte 13"},
                                         Bad{"reaches_into_the_data", with_length(6, "{}xxxx"),
                                             "header, byte 10"}),
                         name_of);

INSTANTIATE_TEST_SUITE_P(
    Bytes, BadHeader,
    testing::Values(
        Bad{"overlong_utf8", file_of("{\"\xc0\xaf\":1}"), "ill-formed UTF-8"},
        Bad{"cesu_surrogate", file_of("{\"\xed\xa0\x80\":1}"), "ill-formed UTF-8"},
        Bad{"above_unicode", file_of("{\"\xf4\x90\x80\x80\":1}"), "ill-formed UTF-8"},
        Bad{"byte_order_mark", file_of("\xef\xbb\xbf{}"), "byte order mark"},
        Bad{"leading_space", file_of(" {}"), "starts with byte 0x20", true},
        Bad{"leading_newline", file_of("\n{}"), "starts with byte 0x0a", true},
        Bad{"padded_with_tab", file_of("{}\t"), "padded with byte 0x09", true},
        Bad{"padded_with_return", file_of("{}\r  "), "padded with byte 0x0d", true},
        Bad{"padded_with_newline", file_of("{} \n"), "padded with byte 0x0a", true},
        Bad{"padded_with_nul", file_of(std::string("{}\0\0", 4)), "a NUL byte"},
        Bad{"bytes_after_the_object", file_of("{} x"), "syntax error"},
        Bad{"array", file_of("[]"), "starts with byte 0x5b"},
        Bad{"number", file_of("12"), "starts with byte 0x31"},
        Bad{"control_character", file_of("{\"\x01\":1}"), "control character"},
        Bad{"lone_surrogate", file_of("{\"\\ud800\":1}"), "surrogate"},
        Bad{"invalid_escape", file_of("{\"\\x\":1}"), "invalid string"},
        Bad{"comment", file_of("{/**/}"), "syntax error"},
        Bad{"trailing_comma", file_of("{" + entry("a", "F32", "[1]", 0, 4) + ",}", 4), "syntax error"},
        Bad{"single_quotes", file_of("{'a':1}"), "syntax error"},
        Bad{"nan", file_of("{\"a\":NaN}"), "syntax error"},
        Bad{"infinity", file_of("{\"a\":Infinity}"), "syntax error"},
        Bad{"deep", file_of("{\"a\":[[[[]]]]}"), "nested deeper than 4"},
        Bad{"very_deep", file_of("{\"a\":" + std::string(100'000, '[')), "nested deeper than 4"},
        Bad{"leading_zero", one("\"dtype\":\"F32\",\"shape\":[01],\"data_offsets\":[0,4]"), "syntax error"}),
    name_of);

INSTANTIATE_TEST_SUITE_P(
    Keys, BadHeader,
    testing::Values(
        Bad{"twice_the_same_range",
            file_of("{" + entry("a", "F32", "[1]", 0, 4) + "," + entry("a", "F32", "[1]", 0, 4) + "}", 4),
            "duplicate key \"a\""},
        Bad{"twice_another_range",
            file_of("{" + entry("a", "F32", "[1]", 0, 4) + "," + entry("a", "F32", "[1]", 4, 8) + "}", 8),
            "duplicate key \"a\""},
        Bad{"twice_when_unescaped",
            file_of("{" + entry("a", "F32", "[1]", 0, 4) + "," + entry("\\u0061", "F32", "[1]", 4, 8) + "}",
                    8),
            "duplicate key \"a\""},
        Bad{"metadata_twice", file_of(R"({"__metadata__":{},"__metadata__":{}})"),
            "duplicate key \"__metadata__\""},
        Bad{"metadata_key_twice", file_of(R"({"__metadata__":{"k":"1","k":"1"}})"), "duplicate key \"k\""},
        Bad{"field_twice", one(kGood + ",\"dtype\":\"F32\""), "duplicate key \"dtype\""},
        Bad{"unknown_field", one(kGood + ",\"stride\":[1]"), "tensor \"a\": unknown field \"stride\""},
        Bad{"no_dtype", one(R"("shape":[1],"data_offsets":[0,4])"), "tensor \"a\": no dtype"},
        Bad{"no_shape", one(R"("dtype":"F32","data_offsets":[0,4])"), "tensor \"a\": no shape"},
        Bad{"no_offsets", one(R"("dtype":"F32","shape":[1])"), "tensor \"a\": no data_offsets"},
        Bad{"empty_name", file_of("{" + entry("", "F32", "[1]", 0, 4) + "}", 4), "empty name", true},
        Bad{"long_name", file_of("{" + entry(std::string(4097, 'n'), "F32", "[1]", 0, 4) + "}", 4),
            "4097 bytes, more than 4096", true},
        Bad{"nul_in_the_name", file_of("{" + entry("a\\u0000b", "F32", "[1]", 0, 4) + "}", 4),
            "tensor \"a^@b\": a NUL byte"},
        Bad{"tensor_no_object", file_of(R"({"a":[]})"), "tensor \"a\": its description is no object"}),
    name_of);

INSTANTIATE_TEST_SUITE_P(
    Types, BadHeader,
    testing::Values(
        Bad{"metadata_null", file_of(R"({"__metadata__":null})"), "__metadata__ is no object", true},
        Bad{"metadata_array", file_of(R"({"__metadata__":[]})"), "__metadata__ is no object"},
        Bad{"metadata_number", file_of(R"({"__metadata__":{"k":1}})"), "the value of \"k\" is no string"},
        Bad{"metadata_nested", file_of(R"({"__metadata__":{"k":{}}})"), "the value of \"k\" is no string"},
        Bad{"unknown_dtype", one(R"("dtype":"F33","shape":[1],"data_offsets":[0,4])"),
            "unknown dtype \"F33\""},
        Bad{"lower_case_dtype", one(R"("dtype":"f32","shape":[1],"data_offsets":[0,4])"),
            "unknown dtype \"f32\""},
        Bad{"dtype_number", one(R"("dtype":32,"shape":[1],"data_offsets":[0,4])"), "dtype is no string"},
        Bad{"shape_number", one(R"("dtype":"F32","shape":1,"data_offsets":[0,4])"), "shape is no array"},
        Bad{"shape_negative", one(R"("dtype":"F32","shape":[-1],"data_offsets":[0,4])"),
            "in its shape, -1 is no unsigned integer"},
        Bad{"shape_negative_zero", one(R"("dtype":"F32","shape":[-0],"data_offsets":[0,0])", 0),
            "in its shape, 0 is no unsigned integer"},
        Bad{"shape_fraction", one(R"("dtype":"F32","shape":[1.0],"data_offsets":[0,4])"),
            "in its shape, 1.0 is no unsigned integer"},
        Bad{"shape_exponent", one(R"("dtype":"F32","shape":[1e0],"data_offsets":[0,4])"),
            "in its shape, 1.0 is no unsigned integer"},
        Bad{"shape_string", one(R"("dtype":"F32","shape":["1"],"data_offsets":[0,4])"),
            "in its shape, \"1\" is no unsigned integer"},
        Bad{"shape_null", one(R"("dtype":"F32","shape":[null],"data_offsets":[0,4])"),
            "in its shape, null is no unsigned integer"},
        Bad{"shape_nested", one(R"("dtype":"F32","shape":[[1]],"data_offsets":[0,4])"),
            "in its shape, [1] is no unsigned integer"},
        Bad{"shape_beyond_64_bits",
            one(R"("dtype":"F32","shape":[18446744073709551616],"data_offsets":[0,4])"),
            "is no unsigned integer"},
        Bad{"rank_65",
            one(
                "\"dtype\":\"U8\",\"shape\":[1" +
                    [] {
                      std::string rest;
                      for (int i = 1; i < 65; ++i) rest += ",1";
                      return rest;
                    }() +
                    "],\"data_offsets\":[0,1]",
                1),
            "65 dimensions, more than 64"},
        Bad{"size_beyond_int64",
            one(R"("dtype":"F32","shape":[0,9223372036854775808],"data_offsets":[0,0])", 0),
            "9223372036854775808 is larger than 2^63-1"},
        Bad{"one_offset", one(R"("dtype":"F32","shape":[1],"data_offsets":[0])"), "no array of two integers"},
        Bad{"three_offsets", one(R"("dtype":"F32","shape":[1],"data_offsets":[0,4,8])"),
            "no array of two integers"},
        Bad{"offsets_object", one(R"("dtype":"F32","shape":[1],"data_offsets":{"0":0,"1":4})"),
            "no array of two integers"},
        Bad{"offset_negative_zero", one(R"("dtype":"F32","shape":[1],"data_offsets":[-0,4])"),
            "in its data_offsets, 0 is no unsigned integer"},
        Bad{"offset_fraction", one(R"("dtype":"F32","shape":[1],"data_offsets":[0.5,4])"),
            "in its data_offsets, 0.5 is no unsigned integer"},
        Bad{"offset_exponent", one(R"("dtype":"F32","shape":[1],"data_offsets":[0,4e0])"),
            "in its data_offsets, 4.0 is no unsigned integer"},
        Bad{"offset_beyond_64_bits",
            one(R"("dtype":"F32","shape":[1],"data_offsets":[0,18446744073709551616])"),
            "is no unsigned integer"}),
    name_of);

INSTANTIATE_TEST_SUITE_P(
    Arithmetic, BadHeader,
    testing::Values(
        Bad{"product_overflows", one(R"("dtype":"U8","shape":[4294967296,4294967296],"data_offsets":[0,4])"),
            "the product of shape [4294967296, 4294967296] overflows"},
        Bad{"product_overflows_before_a_zero",
            one(R"("dtype":"U8","shape":[4294967296,4294967296,0],"data_offsets":[0,0])", 0),
            "overflows 64 bits"},
        Bad{"bits_overflow", one(R"("dtype":"F32","shape":[1152921504606846976],"data_offsets":[0,4])"),
            "more than 2^64 bits"},
        Bad{"half_a_byte", one(R"("dtype":"F4","shape":[3],"data_offsets":[0,2])", 2),
            "F4 [3] does not fill whole bytes"},
        Bad{"six_bits", one(R"("dtype":"F6_E2M3","shape":[2],"data_offsets":[0,2])", 2),
            "F6_E2M3 [2] does not fill whole bytes"},
        Bad{"too_few_bytes", one(R"("dtype":"F32","shape":[2,3],"data_offsets":[0,20])", 20),
            "tensor \"a\": F32 [2, 3] takes 24 bytes, its data_offsets give it 20"},
        Bad{"too_many_bytes", one(R"("dtype":"F32","shape":[],"data_offsets":[0,8])", 8),
            "F32 [] takes 4 bytes, its data_offsets give it 8"},
        Bad{"other_dtype", one(R"("dtype":"F64","shape":[1],"data_offsets":[0,4])"), "F64 [1] takes 8 bytes"},
        Bad{"offsets_near_the_end_of_64_bits",
            one(R"("dtype":"F32","shape":[1],"data_offsets":[18446744073709551611,18446744073709551615])"),
            "a hole of 18446744073709551611 bytes"}),
    name_of);

std::string two(uint64_t b0, uint64_t e0, uint64_t b1, uint64_t e1, size_t data) {
  const auto u8 = [](const char* name, uint64_t begin, uint64_t end) {
    return entry(name, "U8", "[" + std::to_string(end - begin) + "]", begin, end);
  };
  return file_of("{" + u8("a", b0, e0) + "," + u8("b", b1, e1) + "}", data);
}

INSTANTIATE_TEST_SUITE_P(
    Layout, BadHeader,
    testing::Values(
        Bad{"backwards", one(R"("dtype":"F32","shape":[1],"data_offsets":[8,4])", 8),
            "run backwards, [8, 4]"},
        Bad{"hole_at_the_start", one(R"("dtype":"F32","shape":[1],"data_offsets":[4,8])", 8),
            "a hole of 4 bytes in the data before tensor \"a\""},
        Bad{"hole_between", two(0, 4, 6, 8, 8), "a hole of 2 bytes in the data before tensor \"b\""},
        Bad{"overlap", two(0, 4, 2, 6, 6), "tensor \"b\" overlaps tensor \"a\""},
        Bad{"nested", two(0, 8, 2, 4, 8), "tensor \"b\" overlaps tensor \"a\""},
        Bad{"same_range", two(0, 4, 0, 4, 4), "tensor \"b\" has the same bytes as tensor \"a\""},
        Bad{"empty_tensor_inside", two(0, 4, 2, 2, 4), "tensor \"b\" overlaps tensor \"a\""},
        Bad{"empty_tensor_behind", two(0, 4, 5, 5, 4), "a hole of 1 bytes"},
        Bad{"truncated", file_of("{" + entry("a", "F32", "[1]", 0, 4) + "}", 3),
            "truncated: the tensors end at byte 4 of the data, the file at 3"},
        Bad{"trailing_bytes", file_of("{" + entry("a", "F32", "[1]", 0, 4) + "}", 7), "3 trailing bytes"},
        Bad{"data_without_tensors", file_of("{}", 5), "no tensors, but 5 bytes of data"}),
    name_of);

struct Good {
  const char* name;
  std::string file;
  size_t tensors;
};

class GoodHeader : public testing::TestWithParam<Good> {};

TEST_P(GoodHeader, IsAcceptedByBoth) {
  for (const auto strictness : {Strictness::strict, Strictness::compat}) {
    const auto header = parse(GetParam().file, strictness);
    ASSERT_TRUE(header) << header.error().message;
    EXPECT_EQ(header->tensors.size(), GetParam().tensors);
    EXPECT_EQ(header->header_bytes + header->data_bytes, GetParam().file.size());
  }
}

INSTANTIATE_TEST_SUITE_P(
    Each, GoodHeader,
    testing::Values(Good{"nothing", file_of("{}"), 0}, Good{"padded", file_of("{}      "), 0},
                    Good{"metadata_only", file_of(R"({"__metadata__":{"format":"pt"}})"), 0},
                    Good{"metadata_empty", file_of(R"({"__metadata__":{}})"), 0},
                    Good{"zero_dimensions", file_of("{" + entry("a", "F64", "[]", 0, 8) + "}", 8), 1},
                    Good{"empty_tensors",
                         file_of("{" + entry("a", "F32", "[0,3]", 0, 0) + "," +
                                     entry("b", "U8", "[2]", 0, 2) + "," + entry("c", "I64", "[0]", 2, 2) +
                                     "," + entry("d", "I64", "[7,0]", 2, 2) + "}",
                                 2),
                         4},
                    Good{"only_empty_tensors", file_of("{" + entry("a", "F32", "[0]", 0, 0) + "}"), 1},
                    Good{"header_order_is_not_data_order", two(4, 8, 0, 4, 8), 2},
                    Good{"unaligned", two(0, 3, 3, 8, 8), 2},
                    Good{"four_bits", file_of("{" + entry("a", "F4", "[2,3]", 0, 3) + "}", 3), 1},
                    Good{"six_bits", file_of("{" + entry("a", "F6_E3M2", "[4]", 0, 3) + "}", 3), 1},
                    Good{"white_space_inside", file_of("{ \"a\" : {\n" + kGood + "}\t}", 4), 1},
                    Good{"name_of_4096_bytes",
                         file_of("{" + entry(std::string(4096, 'n'), "U8", "[1]", 0, 1) + "}", 1), 1}),
    [](const auto& info) { return info.param.name; });

TEST(Header, TellsTensorsInDataOrderAndFindsThemByName) {
  const auto header = parse(two(4, 8, 0, 4, 8));
  ASSERT_TRUE(header);
  EXPECT_EQ(header->tensors[0], (TensorInfo{"b", "U8", {4}, 0, 4}));
  EXPECT_EQ(header->tensors[1], (TensorInfo{"a", "U8", {4}, 4, 8}));
  ASSERT_NE(header->find("a"), nullptr);
  EXPECT_EQ(header->find("a")->begin, 4u);
  EXPECT_EQ(header->find("c"), nullptr);
  EXPECT_EQ(header->find(""), nullptr);
}

TEST(Header, HandsOutMetadata) {
  const auto header = parse(file_of(R"({"__metadata__":{"format":"pt","k":"\u00e9"}})"));
  ASSERT_TRUE(header);
  EXPECT_EQ(header->metadata_value("format"), "pt");
  EXPECT_EQ(header->metadata_value("k"), "\xc3\xa9");
  EXPECT_EQ(header->metadata_value("none"), "");
}

TEST(Header, NamesInMessagesCannotSteerATerminal) {
  const auto header = parse(file_of("{" + entry("\\u001b[2J", "F32", "[1]", 0, 3) + "}", 3));
  ASSERT_FALSE(header);
  EXPECT_EQ(header.error().message.find('\x1b'), std::string::npos);
  EXPECT_NE(header.error().message.find("^[[2J"), std::string::npos);
}

std::string small_file() {
  return file_of("{\"__metadata__\":{\"format\":\"pt\"}," + entry("w", "F32", "[2,2]", 0, 16) + "," +
                     entry("b", "BF16", "[3]", 16, 22) + "," + entry("n", "I64", "[]", 22, 30) + "}  ",
                 30);
}

TEST(Header, EveryTruncationIsRefused) {
  const std::string file = small_file();
  ASSERT_TRUE(parse(file));
  for (size_t size = 0; size < file.size(); ++size) EXPECT_FALSE(parse(file.substr(0, size))) << size;
}

// A mutant is either refused with a reason or means something that tiles its data.
TEST(Header, MutantsNeverCrash) {
  const std::string original = small_file();
  constexpr std::string_view kAlphabet =
      "{}[]\",:0123456789-.eE\\u \n\x00\xff"
      "aFU";
  std::mt19937_64 random(20261121);
  int accepted = 0;
  for (int round = 0; round < 2000; ++round) {
    std::string file = original;
    for (uint64_t edits = 1 + random() % 4; edits > 0 && !file.empty(); --edits) {
      const size_t at = random() % file.size();
      switch (random() % 4) {
        case 0:
          file[at] = static_cast<char>(random());
          break;
        case 1:
          file[at] = kAlphabet[random() % kAlphabet.size()];
          break;
        case 2:
          file.erase(at, 1 + random() % 8);
          break;
        default:
          file.insert(at, 1, kAlphabet[random() % kAlphabet.size()]);
      }
    }
    for (const auto strictness : {Strictness::strict, Strictness::compat}) {
      const auto header = parse(file, strictness);
      if (!header) {
        EXPECT_FALSE(header.error().message.empty());
        continue;
      }
      ++accepted;
      uint64_t end = 0;
      for (const auto& tensor : header->tensors) {
        EXPECT_EQ(tensor.begin, end);
        EXPECT_EQ(*tensor_bytes(tensor.dtype, tensor.shape), tensor.bytes());
        end = tensor.end;
      }
      EXPECT_EQ(header->header_bytes + end, file.size());
    }
  }
  EXPECT_GT(accepted, 0);  // changes inside the data do no harm to a header
}

TEST(TensorBytes, CountsEveryDtype) {
  const std::vector<std::pair<std::string, uint64_t>> sizes = {
      {"BOOL", 24},        {"F4", 12},      {"F6_E2M3", 18}, {"F6_E3M2", 18}, {"U8", 24},
      {"I8", 24},          {"F8_E5M2", 24}, {"F8_E4M3", 24}, {"F8_E8M0", 24}, {"F8_E4M3FNUZ", 24},
      {"F8_E5M2FNUZ", 24}, {"I16", 48},     {"U16", 48},     {"F16", 48},     {"BF16", 48},
      {"I32", 96},         {"U32", 96},     {"F32", 96},     {"C64", 192},    {"F64", 192},
      {"I64", 192},        {"U64", 192}};
  for (const auto& [dtype, bytes] : sizes) EXPECT_EQ(tensor_bytes(dtype, {2, 3, 4}), bytes) << dtype;
  EXPECT_FALSE(tensor_bytes("F128", {1}));
  EXPECT_EQ(dtype_bits("F128"), 0u);
}

}  // namespace
}  // namespace bitctl
