#include "chat/transcript.h"

#include <fcntl.h>
#include <fmt/chrono.h>
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <filesystem>
#include <optional>

#include "base/install_layout.h"
#include "base/lock.h"
#include "base/read_file.h"
#include "base/replace_file.h"

namespace bitctl {
namespace {

namespace fs = std::filesystem;

constexpr size_t kMaxBytes = size_t{256} << 20;
constexpr int kMaxSameSecond = 100;

std::string line(const Json& record) { return dump_line(record) + "\n"; }

std::string head(const std::string& model, Wall now) {
  return line({{"type", "chat"}, {"version", 1}, {"model", model}, {"time", unix_seconds(now)}});
}

std::string said(const ChatMessage& message) {
  return line({{"type", "message"}, {"role", message.role}, {"content", message.content}});
}

std::string repeated(const Conversation& conversation) {
  std::string lines;
  if (!conversation.system.empty()) lines += line({{"type", "system"}, {"content", conversation.system}});
  for (const auto& message : conversation.messages) lines += said(message);
  return lines;
}

// Why it is no record; empty where it is one. Types of a later version are left out.
std::string take(const Json& record, Conversation& into) {
  const std::string type = get_text(record, "type");
  if (type == "system") {
    into.system = get_text(record, "content");
  } else if (type == "message") {
    const std::string role = get_text(record, "role");
    if (role != "user" && role != "assistant") return "a message of nobody";
    into.messages.push_back({role, get_text(record, "content")});
  } else if (type == "undo") {
    const uint64_t count = get_unsigned(record, "messages").value_or(0);
    if (count > into.messages.size()) return "it takes back more than was said";
    into.messages.resize(into.messages.size() - count);
  } else if (type.empty()) {
    return "no record of a conversation";
  }
  return {};
}

}  // namespace

Result<Conversation> read_conversation(std::string_view records) {
  Conversation conversation;
  size_t number = 1;
  for (size_t end = 0; (end = records.find('\n')) != std::string_view::npos; ++number) {
    const auto record = parse_strict_json(records.substr(0, end));
    records.remove_prefix(end + 1);
    const std::string wrong = !record               ? record.error().reason
                              : record->is_object() ? take(*record, conversation)
                                                    : "not an object";
    if (!wrong.empty()) return fail(ErrorKind::damaged, fmt::format("line {}: {}", number, wrong));
  }
  // A prompt whose answer never came was never asked.
  if (conversation.messages.size() % 2 == 1) conversation.messages.pop_back();
  return conversation;
}

Result<Conversation> read_conversation_file(const std::string& path) {
  const auto records = read_small_file(path, kMaxBytes, Links::follow);
  if (!records) return tl::unexpected(records.error());
  auto conversation = read_conversation(*records);
  if (!conversation) return fail(conversation.error().kind, path + ": " + conversation.error().message);
  if (records->find('\n') == std::string::npos) return fail(ErrorKind::damaged, path + ": no conversation");
  return conversation;
}

std::string conversation_records(const Conversation& conversation, const std::string& model, Wall now) {
  return head(model, now) + repeated(conversation);
}

std::string transcript_folder() {
  const std::string state = state_home();
  return state.empty() ? "" : state + "/chats";
}

Result<std::string> newest_transcript(const std::string& folder) {
  std::string newest;
  std::error_code error;
  for (const auto& entry : fs::directory_iterator(folder, error))
    if (entry.path().extension() == ".jsonl") newest = std::max(newest, entry.path().filename().string());
  if (newest.empty()) return fail(ErrorKind::not_found, "no conversation to go on with in " + folder);
  return folder + "/" + newest;
}

void Transcript::begin(Conversation before) {
  file_ = Fd();
  path_.clear();
  before_ = std::move(before);
}

Result<Conversation> Transcript::take_up(const std::string& path) {
  Fd file(::open(path.c_str(), O_RDWR | O_APPEND | O_CLOEXEC | O_NOFOLLOW));
  if (!file) return fail_errno("cannot open " + path, errno);
  if (auto lock = lock_descriptor(file.get(), FileLock::Mode::exclusive, {}, path); !lock)
    return tl::unexpected(lock.error());
  const auto records = read_small_file(path, kMaxBytes);
  if (!records) return tl::unexpected(records.error());
  auto conversation = read_conversation(*records);
  if (!conversation) return fail(conversation.error().kind, path + ": " + conversation.error().message);
  // Behind half a line no other could be read.
  const size_t whole = records->rfind('\n') + 1;
  if (whole != records->size() && ::ftruncate(file.get(), static_cast<off_t>(whole)) != 0)
    return fail_errno("cannot shorten " + path, errno);
  file_ = std::move(file);
  path_ = path;
  model_.clear();  // told again with the next turn
  system_ = conversation->system;
  return conversation;
}

Status Transcript::create(const std::string& model) {
  std::error_code error;
  fs::create_directories(folder_, error);
  fs::permissions(folder_, fs::perms::owner_all, error);
  std::string name = model;
  std::replace(name.begin(), name.end(), '/', '-');
  const auto now = clock_.wall();
  const std::string stem = fmt::format("{}/{:%Y%m%d-%H%M%S}", folder_, fmt::localtime(unix_seconds(now)));
  for (int i = 0; i < kMaxSameSecond && !file_; ++i) {
    path_ = fmt::format("{}-{:02}-{}.jsonl", stem, i, name);
    file_ = Fd(::open(path_.c_str(), O_WRONLY | O_APPEND | O_CREAT | O_EXCL | O_CLOEXEC, 0600));
    if (!file_ && errno != EEXIST) break;
  }
  if (!file_) return fail_errno("cannot create " + path_, errno);
  if (auto lock = lock_descriptor(file_.get(), FileLock::Mode::exclusive, {}, path_); !lock) return lock;
  model_ = model;
  system_ = before_.system;
  return append(conversation_records(before_, model, now));
}

Status Transcript::add(const TurnRecord& turn) {
  if (folder_.empty() && !file_) return {};
  if (!file_)
    if (auto created = create(turn.model); !created) return created;
  std::string lines;
  if (turn.model != model_) lines += line({{"type", "model"}, {"model", model_ = turn.model}});
  if (turn.system != system_) lines += line({{"type", "system"}, {"content", system_ = turn.system}});
  if (turn.replaces > 0) lines += line({{"type", "undo"}, {"messages", turn.replaces}});
  lines += said({"user", turn.prompt});
  lines += line({{"type", "message"},
                 {"role", "assistant"},
                 {"content", turn.answer},
                 {"stop", turn.stop},
                 {"seed", turn.seed},
                 {"prompt_tokens", turn.prompt_tokens},
                 {"new_tokens", turn.new_tokens}});
  return append(lines);
}

Status Transcript::undo(size_t messages) {
  if (!file_) {
    before_.messages.resize(before_.messages.size() - std::min(messages, before_.messages.size()));
    return {};
  }
  return append(line({{"type", "undo"}, {"messages", messages}}));
}

Status Transcript::append(std::string_view lines) { return write_all(file_.get(), lines, path_); }

}  // namespace bitctl
