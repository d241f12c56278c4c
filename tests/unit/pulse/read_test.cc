#include "pulse/read.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <filesystem>
#include <random>

#include "base/fd.h"
#include "unit/temporary_folder.h"

namespace bitctl {
namespace {

using testing::HasSubstr;

const std::string kGood =
    R"({"status":"running","epoch":1.5,"total_epochs":3,"loss":-0.25,"message":"über\n","timestamp":1732800000})";

// kGood with the first occurrence of `what` replaced.
std::string with(const std::string& what, const std::string& by) {
  std::string text = kGood;
  return text.replace(text.find(what), what.size(), by);
}

TEST(ReadPulse, TakesWhatIsGood) {
  const PulseRead read = parse_pulse(kGood, "p");
  ASSERT_TRUE(std::holds_alternative<PulseGood>(read));
  EXPECT_EQ(std::get<PulseGood>(read).status,
            (PulseStatus{TrainingState::running, 1.5, 3, -0.25, "über\n", 1732800000}));
  EXPECT_TRUE(std::get<PulseGood>(read).unknown_keys.empty());
}

TEST(ReadPulse, TakesEachStateInAnyOrderOfKeys) {
  for (const char* state : {"idle", "running", "done", "error"}) {
    const PulseRead read = parse_pulse(
        std::string(R"({"timestamp":0,"message":"","loss":0,"total_epochs":0,"epoch":-0.0,"status":")") +
            state + "\"}\r\n",
        "p");
    ASSERT_TRUE(std::holds_alternative<PulseGood>(read)) << state;
    EXPECT_EQ(state_name(std::get<PulseGood>(read).status.status), state);
    EXPECT_FALSE(std::signbit(std::get<PulseGood>(read).status.epoch));
  }
}

TEST(ReadPulse, NamesTheKeysThatItDoesNotKnow) {
  const PulseRead read = parse_pulse(with("{", R"({"progress":50,"profile":{"a":[1]},)"), "p");
  ASSERT_TRUE(std::holds_alternative<PulseGood>(read));
  EXPECT_THAT(std::get<PulseGood>(read).unknown_keys, testing::ElementsAre("progress", "profile"));
}

struct Bad {
  const char* name;
  std::string text;
  size_t byte;
  const char* reason;
};

class BadPulse : public testing::TestWithParam<Bad> {};

TEST_P(BadPulse, IsDamageWithTheByteAndTheReason) {
  const PulseRead read = parse_pulse(GetParam().text, "p");
  ASSERT_TRUE(std::holds_alternative<PulseDamaged>(read));
  const auto& damaged = std::get<PulseDamaged>(read);
  EXPECT_EQ(damaged.byte, GetParam().byte) << damaged.reason;
  EXPECT_THAT(damaged.reason, HasSubstr(GetParam().reason));
  EXPECT_TRUE(damaged.readable);
}

size_t at(const std::string& what) { return kGood.find(what); }

INSTANTIATE_TEST_SUITE_P(
    Each, BadPulse,
    testing::Values(
        Bad{"empty", "", 0, "empty"}, Bad{"nul_bytes", std::string(100, '\0'), 0, "syntax error"},
        Bad{"null", "null", 0, "not a JSON object"}, Bad{"list", "[" + kGood + "]", 0, "not a JSON object"},
        Bad{"text_before", "x" + kGood, 0, "syntax error"},
        Bad{"text_after", kGood + kGood, kGood.size(), "syntax error"},
        Bad{"nul_padding", kGood + std::string(3, '\0'), kGood.size(), "NUL byte"},
        Bad{"byte_order_mark", "\xef\xbb\xbf" + kGood, 0, "byte order mark"},
        Bad{"deep", std::string(100000, '['), 9, "nested deeper"},
        Bad{"duplicate_key", with(R"("loss")", R"("epoch")"), at(R"("loss")") + 7, "duplicate key \"epoch\""},
        Bad{"no_status", with(R"("status")", R"("state")"), kGood.size() - 2, "\"status\" is missing"},
        Bad{"no_timestamp", with(R"(,"timestamp":1732800000)", ""), kGood.size() - 24,
            "\"timestamp\" is missing"},
        Bad{"status_queued", with("running", "queued"), at("\"running"),
            "none of idle, running, done, error"},
        Bad{"status_number", with("\"running\"", "1"), at("\"running"), "\"status\" is not a text: 1"},
        Bad{"epoch_null", with("1.5", "null"), at("1.5"), "\"epoch\" is not a number: null"},
        Bad{"epoch_bool", with("1.5", "true"), at("1.5"), "\"epoch\" is not a number: true"},
        Bad{"epoch_text", with("1.5", "\"1.5\""), at("1.5"), "\"epoch\" is not a number"},
        Bad{"epoch_negative", with("1.5", "-0.5"), at("1.5"), "\"epoch\" is negative: -0.5"},
        Bad{"total_negative", with(":3", ":-3"), at(":3") + 1, "\"total_epochs\" is negative: -3"},
        Bad{"loss_nan", with("-0.25", "NaN"), at("-0.25"), "syntax error"},
        Bad{"loss_minus_infinity", with("-0.25", "-Infinity"), at("-0.25") + 1, "syntax error"},
        Bad{"loss_too_large", with("-0.25", "1e999"), at("-0.25") + 4, "number overflow"},
        Bad{"loss_null", with("-0.25", "null"), at("-0.25"), "\"loss\" is not a number: null"},
        Bad{"message_null", with(R"("über\n")", "null"), at("\"über"), "\"message\" is not a text: null"},
        Bad{"message_invalid_utf8", with("über", "\xff"), at("über"), "invalid string"},
        Bad{"message_surrogate", with("über", R"(\ud800)"), at("über") + 7, "surrogate"},
        Bad{"timestamp_fraction", with("1732800000", "1732800000.9"), at("1732"), "not a whole number"},
        Bad{"timestamp_float", with("1732800000", "1732800000.0"), at("1732"), "not a whole number"},
        Bad{"timestamp_exponent", with("1732800000", "1e9"), at("1732"), "not a whole number"},
        Bad{"timestamp_negative", with("1732800000", "-1"), at("1732"), "\"timestamp\" is negative"},
        Bad{"timestamp_beyond_63_bits", with("1732800000", "9223372036854775808"), at("1732"),
            "out of range"},
        Bad{"timestamp_beyond_64_bits", with("1732800000", "99999999999999999999"), at("1732"),
            "not a whole"},
        Bad{"timestamp_text", with("1732800000", "\"now\""), at("1732"), "not a whole number"}),
    [](const auto& info) { return info.param.name; });

TEST(ReadPulse, EveryShorterFileIsDamaged) {
  for (size_t size = 0; size < kGood.size(); ++size)
    EXPECT_TRUE(std::holds_alternative<PulseDamaged>(parse_pulse(kGood.substr(0, size), "p"))) << size;
}

TEST(ReadPulse, ALongestTimestampIsGood) {
  EXPECT_TRUE(std::holds_alternative<PulseGood>(parse_pulse(with("1732800000", "9223372036854775807"), "p")));
}

TEST(ReadPulse, AReasonNeverSteersTheTerminal) {
  for (const std::string& evil :
       {with("running",
             "\xc2\x9b"
             "31m\\u001b[2J"),
        with("{", "{\"\xe2\x80\xae\":\x1b[2J"), with("running", std::string(30000, 'x'))}) {
    const PulseRead read = parse_pulse(evil, "a\x1b[2J");
    const std::string text = damage_text(std::get<PulseDamaged>(read));
    EXPECT_LT(text.size(), 300u);
    for (const char* control : {"\x1b", "\xc2\x9b", "\xe2\x80\xae", "\n"})
      EXPECT_EQ(text.find(control), std::string::npos) << text;
  }
}

TEST(ReadPulse, JunkNeverThrowsAndNeverReadsAsGoodByChance) {
  std::mt19937 random(1);
  int good = 0;
  for (int round = 0; round < 20000; ++round) {
    std::string text = kGood;
    for (unsigned i = 0; i <= random() % 4; ++i) {
      const size_t where = random() % text.size();
      if (random() % 2)
        text[where] = static_cast<char>(random());
      else
        text.erase(where, 1 + random() % 8);
    }
    const PulseRead read = parse_pulse(text, "p");
    if (const auto* fine = std::get_if<PulseGood>(&read)) {
      ++good;  // a digit or a letter of the message has changed; the numbers still are numbers
      EXPECT_TRUE(std::isfinite(fine->status.loss) && fine->status.epoch >= 0 && fine->status.timestamp >= 0);
    }
  }
  EXPECT_LT(good, 10000);
}

// --- files that are none

PulseDamaged read_damaged(const std::string& path) {
  const PulseRead read = read_pulse(path);
  EXPECT_TRUE(std::holds_alternative<PulseDamaged>(read)) << path;
  return std::holds_alternative<PulseDamaged>(read) ? std::get<PulseDamaged>(read) : PulseDamaged{};
}

TEST(ReadPulseFile, MissingIsAnAnswerOfItsOwn) {
  const TemporaryFolder folder;
  EXPECT_TRUE(std::holds_alternative<PulseMissing>(read_pulse(folder / "none.json")));
  EXPECT_TRUE(std::holds_alternative<PulseMissing>(read_pulse(folder / "none/none.json")));
}

TEST(ReadPulseFile, OnlyARegularFileIsRead) {
  const TemporaryFolder folder;
  const std::string file = folder.write("file.json", kGood);
  std::filesystem::create_symlink(file, folder / "link.json");
  ASSERT_EQ(::mkfifo((folder / "fifo.json").c_str(), 0600), 0);
  const Fd socket(::socket(AF_UNIX, SOCK_STREAM, 0));
  sockaddr_un address{.sun_family = AF_UNIX};
  (folder / "socket.json").copy(address.sun_path, sizeof address.sun_path - 1);
  ASSERT_EQ(::bind(socket.get(), reinterpret_cast<sockaddr*>(&address), sizeof address), 0);

  EXPECT_THAT(read_damaged(folder / "link.json").reason, HasSubstr("symbolic link"));
  EXPECT_EQ(read_damaged(folder / "fifo.json").reason, "a FIFO, not a file");
  EXPECT_EQ(read_damaged(folder.path()).reason, "a folder, not a file");
  EXPECT_EQ(read_damaged(folder / "socket.json").reason, "not a regular file");
  EXPECT_EQ(read_damaged("/dev/zero").reason, "a device, not a file");
  EXPECT_FALSE(read_damaged(folder.path()).readable);
  EXPECT_EQ(damage_text(read_damaged(folder.path())), folder.path() + ": a folder, not a file");
}

TEST(ReadPulseFile, AFileThatIsTooLargeIsNotRead) {
  const TemporaryFolder folder;
  const std::string large = folder.write("large.json", kGood);
  std::filesystem::resize_file(large, 100 * 1000 * 1000);
  EXPECT_EQ(read_damaged(large).reason, "larger than 65536 bytes");
  const std::string full = kGood + std::string(kMaxPulseBytes - kGood.size(), ' ');
  EXPECT_TRUE(std::holds_alternative<PulseGood>(read_pulse(folder.write("full.json", full))));
  EXPECT_FALSE(read_damaged(folder.write("over.json", full + " ")).readable);
}

TEST(ReadPulseFile, ReadingChangesNothing) {
  const TemporaryFolder folder;
  const std::string file = folder.write("file.json", with("1732800000", "1000"));
  struct stat before {
  }, after{};
  ASSERT_EQ(::stat(file.c_str(), &before), 0);
  const PulseRead read = read_pulse(file);
  EXPECT_TRUE(is_stale(std::get<PulseGood>(read).status, 1732800000));
  ASSERT_EQ(::stat(file.c_str(), &after), 0);
  EXPECT_EQ(before.st_ino, after.st_ino);
  EXPECT_EQ(before.st_mtim.tv_nsec, after.st_mtim.tv_nsec);
  EXPECT_EQ(before.st_ctim.tv_nsec, after.st_ctim.tv_nsec);
  EXPECT_EQ(std::distance(std::filesystem::directory_iterator(folder.path()), {}), 1);
}

}  // namespace
}  // namespace bitctl
