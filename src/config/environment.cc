#include "config/environment.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cctype>
#include <vector>

#include "base/read_file.h"
#include "base/text.h"
#include "base/visible_text.h"

namespace bitctl {
namespace {

constexpr size_t kMaxEnvFileBytes = 256 * 1024;
constexpr std::string_view kBlanks = " \t\r";

std::string in_upper_case(std::string_view text) {
  std::string upper(text);
  for (char& c : upper) c = static_cast<char>(std::toupper(static_cast<unsigned char>(c)));
  return upper;
}

bool is_name_byte(char c) { return std::isalnum(static_cast<unsigned char>(c)) || c == '_'; }

std::string_view trimmed(std::string_view text) {
  const size_t start = std::min(text.find_first_not_of(kBlanks), text.size());
  const size_t end = text.find_last_not_of(kBlanks);
  return end == std::string_view::npos ? std::string_view() : text.substr(start, end + 1 - start);
}

// The body of one ${…}.
Result<std::string> value_of(std::string_view body, const Environment& environment, Environment& used) {
  const size_t name_end =
      static_cast<size_t>(std::find_if_not(body.begin(), body.end(), is_name_byte) - body.begin());
  const std::string name(body.substr(0, name_end));
  std::string_view rest = body.substr(name_end);
  const bool has_default = rest.starts_with(":-");
  if (!is_environment_name(name) || (!rest.empty() && !has_default) || rest.find("${") != rest.npos)
    return fail(ErrorKind::invalid,
                "only ${NAME} and ${NAME:-default} are filled in; write $${ for a plain ${");
  const auto found = environment.find(name);
  if (found == environment.end() || (has_default && found->second.empty())) {
    if (has_default) return std::string(rest.substr(2));
    return fail(ErrorKind::invalid, fmt::format("the environment variable {0} is not set; set it, or write "
                                                "${{{0}:-default}}, or $${{{0}}} for a plain ${{{0}}}",
                                                name));
  }
  if (valid_utf8(found->second) != found->second)
    return fail(ErrorKind::invalid, fmt::format("the environment variable {} is not valid UTF-8", name));
  used.insert(*found);
  return found->second;
}

}  // namespace

Environment current_environment() {
  Environment environment;
  for (char** entry = ::environ; entry != nullptr && *entry != nullptr; ++entry) {
    const std::string_view text = *entry;
    const size_t equals = text.find('=');
    if (equals != text.npos) environment.emplace(text.substr(0, equals), text.substr(equals + 1));
  }
  return environment;
}

bool is_environment_name(std::string_view name) {
  return !name.empty() && !std::isdigit(static_cast<unsigned char>(name[0])) &&
         std::all_of(name.begin(), name.end(), is_name_byte);
}

bool is_secret(std::string_view name, std::string_view value) {
  constexpr std::array kSwitches = {"", "0", "1", "TRUE", "FALSE", "YES", "NO", "ON", "OFF"};
  if (std::find(kSwitches.begin(), kSwitches.end(), in_upper_case(value)) != kSwitches.end()) return false;
  const std::string upper = in_upper_case(name);
  for (const char* word : {"TOKEN", "KEY", "SECRET", "PASSWORD"})
    if (upper.find(word) != std::string::npos) return true;
  return false;
}

Result<std::string> expand(std::string_view text, const Environment& environment, Environment& used) {
  std::string out;
  while (!text.empty()) {
    const size_t dollar = std::min(text.find('$'), text.size());
    out += text.substr(0, dollar);
    text.remove_prefix(dollar);
    if (text.starts_with("$$")) {
      out += '$';
      text.remove_prefix(2);
    } else if (text.starts_with("${")) {
      const size_t end = text.find('}');
      if (end == text.npos) return fail(ErrorKind::invalid, "'${' without '}'; write $${ for a plain ${");
      auto value = value_of(text.substr(2, end - 2), environment, used);
      if (!value) return value;
      out += *value;
      text.remove_prefix(end + 1);
    } else if (!text.empty()) {
      out += '$';
      text.remove_prefix(1);
    }
  }
  return out;
}

namespace {

std::string with_references(std::string_view text, const Secrets& secrets, std::string_view dollar) {
  std::vector<std::pair<std::string, std::string>> longest_first(secrets.begin(), secrets.end());
  std::stable_sort(longest_first.begin(), longest_first.end(),
                   [](const auto& a, const auto& b) { return a.first.size() > b.first.size(); });
  std::string out;
  while (!text.empty()) {
    const auto here = [&](const auto& s) { return !s.first.empty() && text.starts_with(s.first); };
    const auto secret = std::find_if(longest_first.begin(), longest_first.end(), here);
    if (secret != longest_first.end()) {
      out += "${" + secret->second + "}";
      text.remove_prefix(secret->first.size());
    } else {
      if (text[0] == '$')
        out += dollar;
      else
        out += text[0];
      text.remove_prefix(1);
    }
  }
  return out;
}

}  // namespace

std::string mask_secrets(std::string_view text, const Secrets& secrets) {
  return with_references(text, secrets, "$");
}

std::string unexpand(std::string_view text, const Secrets& secrets) {
  return with_references(text, secrets, "$$");
}

namespace {

// A quoted value and nothing after it but a comment.
Result<std::string> quoted_value(std::string_view text) {
  const char quote = text[0];
  std::string value;
  for (size_t i = 1; i < text.size(); ++i) {
    if (text[i] == quote) {
      const std::string_view rest = trimmed(text.substr(i + 1));
      if (!rest.empty() && rest[0] != '#') return fail(ErrorKind::invalid, "text after the closing quote");
      return value;
    }
    if (quote == '"' && text[i] == '\\' && i + 1 < text.size()) {
      const char next = text[++i];
      value += next == 'n' ? '\n' : next == 't' ? '\t' : next;
    } else {
      value += text[i];
    }
  }
  return fail(ErrorKind::invalid, "the quote is never closed");
}

std::string plain_value(std::string_view text) {
  for (size_t at = 0; (at = text.find('#', at)) != text.npos; ++at)
    if (at == 0 || kBlanks.find(text[at - 1]) != kBlanks.npos)
      return std::string(trimmed(text.substr(0, at)));
  return std::string(text);
}

}  // namespace

Result<Environment> parse_env_file(std::string_view text, const std::string& path) {
  Environment environment;
  int number = 0;
  for (const std::string& raw : split(text, '\n')) {
    ++number;
    const auto refuse = [&](std::string_view what) {
      return fail(ErrorKind::damaged, fmt::format("{}:{}: {}", path, number, what));
    };
    std::string_view line = trimmed(raw);
    if (line.empty() || line[0] == '#') continue;
    if (valid_utf8(line) != line || line.find('\0') != line.npos) return refuse("not valid UTF-8 text");
    if (line.starts_with("export ")) line = trimmed(line.substr(7));
    const size_t equals = line.find('=');
    if (equals == line.npos) return refuse("expected KEY=VALUE");
    const std::string_view key = line.substr(0, equals);
    if (!is_environment_name(key)) return refuse("what stands before '=' is no name of a variable");
    const std::string_view rest = trimmed(line.substr(equals + 1));
    if (!rest.empty() && (rest[0] == '"' || rest[0] == '\'')) {
      auto value = quoted_value(rest);
      if (!value) return refuse(value.error().message);
      environment[std::string(key)] = *std::move(value);
    } else {
      environment[std::string(key)] = plain_value(rest);
    }
  }
  return environment;
}

Result<Environment> read_env_file(const std::string& path) {
  auto text = read_small_file(path, kMaxEnvFileBytes, Links::follow);
  if (!text) return forward(std::move(text));
  return parse_env_file(*text, path);
}

}  // namespace bitctl
