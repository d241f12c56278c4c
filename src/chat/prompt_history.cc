#include "chat/prompt_history.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <filesystem>

#include "base/fd.h"
#include "base/install_layout.h"
#include "base/lock.h"
#include "base/read_file.h"
#include "base/replace_file.h"
#include "base/strict_json.h"
#include "base/text.h"

namespace bitctl {
namespace {

constexpr auto kLockLimit = std::chrono::seconds(1);

std::string line(std::string_view prompt) { return dump_line(Json{{"prompt", prompt}}) + "\n"; }

Result<FileLock> lock(const std::string& path) {
  return FileLock::acquire(path + ".lock", FileLock::Mode::exclusive, kLockLimit);
}

}  // namespace

std::string prompt_history_path() {
  const std::string state = state_home();
  return state.empty() ? "" : state + "/chat_history.jsonl";
}

std::vector<std::string> PromptHistory::read() const {
  size_t bytes = 0;
  auto prompts = read_file(bytes);
  if (bytes > kLargeBytes) shorten();
  return prompts;
}

std::vector<std::string> PromptHistory::read_file(size_t& bytes) const {
  std::vector<std::string> prompts;
  struct stat st {};
  if (path_.empty() || ::stat(path_.c_str(), &st) != 0) return prompts;
  bytes = static_cast<size_t>(st.st_size);
  const auto tail = read_tail(path_, kLargeBytes);
  if (!tail) return prompts;
  for (const auto& text : split(*tail, '\n')) {
    const auto record = parse_strict_json(text);
    if (record && record->is_object() && record->contains("prompt"))
      prompts.push_back(get_text(*record, "prompt"));
  }
  if (prompts.size() > kKept) prompts.erase(prompts.begin(), prompts.end() - kKept);
  return prompts;
}

Status PromptHistory::add(std::string_view prompt) const {
  if (path_.empty()) return {};
  std::error_code error;
  std::filesystem::create_directories(folder_of(path_), error);
  const auto locked = lock(path_);
  if (!locked) return tl::unexpected(locked.error());
  const Fd file(::open(path_.c_str(), O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600));
  if (!file) return fail_errno("cannot open " + path_, errno);
  return write_all(file.get(), line(prompt), path_);
}

// Under the lock it is read again: another chat may have added to it, or made it short.
void PromptHistory::shorten() const {
  const auto locked = lock(path_);
  size_t bytes = 0;
  const auto prompts = locked ? read_file(bytes) : std::vector<std::string>();
  if (bytes <= kLargeBytes) return;
  std::string content;
  for (const auto& prompt : prompts) content += line(prompt);
  const std::string shorter = path_ + ".new";  // of this name there is one, under the lock
  ::unlink(shorter.c_str());
  const Fd file(::open(shorter.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600));
  if (file && write_all(file.get(), content, shorter)) ::rename(shorter.c_str(), path_.c_str());
}

}  // namespace bitctl
