#include "config/yaml_document.h"

#include <fmt/format.h>
#include <yaml-cpp/eventhandler.h>
#include <yaml-cpp/exceptions.h>
#include <yaml-cpp/mark.h>
#include <yaml-cpp/parser.h>

#include <algorithm>
#include <optional>
#include <set>
#include <sstream>
#include <tuple>
#include <utility>
#include <vector>

#include "base/visible_text.h"
#include "config/core_scalar.h"

namespace bitctl {
namespace {

// Unwinds the YAML library; caught in parse_yaml.
struct Refusal {
  YAML::Mark mark;
  std::string text;
};

// yaml-cpp counts bytes, people count characters.
Place place_of(const YAML::Mark& mark, std::string_view text, const std::string& source) {
  if (mark.is_null()) return {source, 1, 1};
  const size_t at = std::min(static_cast<size_t>(mark.pos), text.size());
  const size_t line_start = at - std::min(static_cast<size_t>(mark.column), at);
  const auto is_first_byte = [](char c) { return (static_cast<unsigned char>(c) & 0xc0) != 0x80; };
  const auto characters = std::count_if(text.begin() + static_cast<ptrdiff_t>(line_start),
                                        text.begin() + static_cast<ptrdiff_t>(at), is_first_byte);
  return {source, mark.line + 1, static_cast<int>(characters) + 1};
}

// yaml-cpp takes a quoted scalar that runs into the end of the file for a whole one.
bool quote_is_closed(std::string_view text, size_t at) {
  const char quote = text[at];
  for (size_t i = at + 1; i < text.size(); ++i) {
    if (text[i] == '\\' && quote == '"') {
      ++i;
    } else if (text[i] == quote) {
      if (quote == '"' || i + 1 >= text.size() || text[i + 1] != '\'') return true;
      ++i;
    }
  }
  return false;
}

class Builder : public YAML::EventHandler {
 public:
  Builder(std::string_view text, std::string source) : text_(text), source_(std::move(source)) {}

  YamlDocument document;
  bool found() const { return found_; }

  void OnDocumentStart(const YAML::Mark& mark) override {
    if (std::exchange(found_, true))
      throw Refusal{mark, "a second document starts here; a config is one document"};
  }
  void OnDocumentEnd() override {}

  void OnAnchor(const YAML::Mark& mark, const std::string&) override {
    throw Refusal{mark, "anchors (&) are not allowed in a config; write the value out"};
  }
  void OnAlias(const YAML::Mark& mark, YAML::anchor_t) override {
    throw Refusal{mark, "aliases (*) are not allowed in a config; write the value out"};
  }

  void OnNull(const YAML::Mark& mark, YAML::anchor_t) override {
    refuse_tag(mark, "?");
    if (awaits_key()) throw Refusal{mark, "a key is missing here"};
    add(mark, nullptr, "");
  }
  void OnScalar(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t,
                const std::string& value) override {
    refuse_tag(mark, tag == "!" ? "?" : tag);  // "!" is how the parser marks a quoted scalar
    const char first = byte_at(mark);
    if ((first == '"' || first == '\'') && !quote_is_closed(text_, static_cast<size_t>(mark.pos)))
      throw Refusal{mark, "the quote that opens here is never closed"};
    if (value.find('\0') != std::string::npos) throw Refusal{mark, "a NUL byte cannot stand in a config"};
    const bool plain = tag == "?";
    if (!awaits_key()) return add(mark, plain ? core_scalar(value) : Json(value), value);
    if (plain && value == "<<") throw Refusal{mark, "merge keys (<<) are not allowed in a config"};
    Open& map = open_.back();
    if (!map.keys.insert(value).second)
      throw Refusal{mark, fmt::format("the key '{}' stands here a second time", shortened(value, 60))};
    map.key = value;
    map.key_mark = mark;
  }

  void OnSequenceStart(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t,
                       YAML::EmitterStyle::value) override {
    open(mark, tag, Json::array());
  }
  void OnSequenceEnd() override { close(); }
  void OnMapStart(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t,
                  YAML::EmitterStyle::value) override {
    open(mark, tag, Json::object());
  }
  void OnMapEnd() override { close(); }

 private:
  struct Open {
    Json value;
    std::string pointer;
    std::optional<std::string> key = {};  // of the value that comes next, in a map
    YAML::Mark key_mark = {};
    std::set<std::string> keys = {};
  };

  bool awaits_key() const { return !open_.empty() && open_.back().value.is_object() && !open_.back().key; }
  char byte_at(const YAML::Mark& mark) const {
    return !mark.is_null() && static_cast<size_t>(mark.pos) < text_.size()
               ? text_[static_cast<size_t>(mark.pos)]
               : '\0';
  }
  void refuse_tag(const YAML::Mark& mark, const std::string& tag) const {
    if (tag != "?" || byte_at(mark) == '!') throw Refusal{mark, "tags (!) are not allowed in a config"};
  }

  // Records where the next value stands; its pointer.
  std::string note(const YAML::Mark& mark, std::string text) {
    std::string pointer;
    Place place = place_of(mark, text_, source_);
    Place key_place = place;
    if (!open_.empty()) {
      const Open& parent = open_.back();
      const bool in_map = parent.value.is_object();
      pointer = child_pointer(parent.pointer, in_map ? *parent.key : std::to_string(parent.value.size()));
      if (in_map) key_place = place_of(parent.key_mark, text_, source_);
      // A block is looked for where its key stands, and the parser puts an absent value lines below.
      if (place.line != key_place.line) place = key_place;
    }
    document.nodes[pointer] = {std::move(place), std::move(key_place), std::move(text)};
    return pointer;
  }

  void put(Json value) {
    if (open_.empty()) {
      document.json = std::move(value);
    } else if (Open& parent = open_.back(); parent.value.is_array()) {
      parent.value.push_back(std::move(value));
    } else {
      // ordered_json looks a key up by a linear scan; `keys` already proved that it is new.
      parent.value.get_ref<Json::object_t&>().emplace_back(*std::exchange(parent.key, {}), std::move(value));
    }
  }
  void add(const YAML::Mark& mark, Json value, const std::string& text) {
    note(mark, text);
    put(std::move(value));
  }
  void open(const YAML::Mark& mark, const std::string& tag, Json value) {
    refuse_tag(mark, tag);
    if (awaits_key()) throw Refusal{mark, "a map or a list cannot be a key; is every bracket closed?"};
    if (open_.size() >= kMaxConfigDepth)
      throw Refusal{mark, fmt::format("nested deeper than {} levels", kMaxConfigDepth)};
    std::string pointer = note(mark, "");
    open_.push_back({std::move(value), std::move(pointer)});
  }
  void close() {
    Json value = std::move(open_.back().value);
    open_.pop_back();
    put(std::move(value));
  }

  std::string_view text_;
  std::string source_;
  std::vector<Open> open_;
  bool found_ = false;
};

// The parser replaces broken UTF-8 and swallows stray carriage returns in silence; both would change values.
std::optional<std::pair<size_t, std::string>> forbidden_byte(std::string_view text) {
  for (size_t at = 0; at < text.size();) {
    char32_t c = 0;
    const size_t length = decode_utf8(text, at, c);
    if (length == 0) return {{at, "not valid UTF-8"}};
    if (c == '\r' && (at + 1 == text.size() || text[at + 1] != '\n'))
      return {{at, "a carriage return without a line feed"}};
    if (c < 0x20 && c != '\t' && c != '\n' && c != '\r')
      return {{at, fmt::format("the control character 0x{:02x}", static_cast<uint32_t>(c))}};
    at += length;
  }
  return std::nullopt;
}

YAML::Mark mark_at(std::string_view text, size_t at) {
  YAML::Mark mark;
  const std::string_view before = text.substr(0, at);
  mark.pos = static_cast<int>(at);
  mark.line = static_cast<int>(std::count(before.begin(), before.end(), '\n'));
  mark.column = static_cast<int>(at - (before.rfind('\n') + 1));  // npos + 1 is 0
  return mark;
}

// A tab in the indentation of the line that failed, or of the one above it: the parser complains about its
// consequences only.
std::optional<YAML::Mark> tab_in_indentation(std::string_view text, const YAML::Mark& mark) {
  size_t start = 0;
  for (int line = 0; line <= mark.line && start < text.size(); ++line) {
    const size_t end = std::min(text.find('\n', start), text.size());
    const size_t indentation = std::min(text.find_first_not_of(" \t", start), end);
    const size_t tab = text.find('\t', start);
    if (line + 1 >= mark.line && tab < indentation) return mark_at(text, tab);
    start = end + 1;
  }
  return std::nullopt;
}

std::string in_plain_words(const std::string& message) {
  const std::pair<const char*, const char*> kWords[] = {
      {YAML::ErrorMsg::MAP_VALUE, "a ':' cannot stand here; put text that holds ': ' in quotes"},
      {YAML::ErrorMsg::END_OF_MAP, "this does not fit the lines above; is the indentation right?"},
      {YAML::ErrorMsg::END_OF_SEQ, "this does not fit the list above; is the indentation right?"},
      {YAML::ErrorMsg::END_OF_MAP_FLOW, "a '{' is not closed before this"},
      {YAML::ErrorMsg::END_OF_SEQ_FLOW, "a '[' is not closed before this"},
      {YAML::ErrorMsg::FLOW_END, "a closing bracket that nothing opened"},
      {YAML::ErrorMsg::UNKNOWN_TOKEN, "text that starts with this character needs quotes"},
      {YAML::ErrorMsg::ALIAS_NOT_FOUND, "text that starts with '*' needs quotes"},
      {YAML::ErrorMsg::ANCHOR_NOT_FOUND, "text that starts with '&' needs quotes"},
  };
  for (const auto& [theirs, ours] : kWords)
    if (message == theirs) return ours;
  return "YAML: " + message;
}

}  // namespace

bool operator<(const Place& a, const Place& b) {
  return std::tuple(a.line == 0, a.line, a.column) < std::tuple(b.line == 0, b.line, b.column);
}

std::string Place::str() const { return line == 0 ? source : fmt::format("{}:{}:{}", source, line, column); }

std::string child_pointer(const std::string& parent, std::string_view key) {
  std::string pointer = parent + "/";
  for (const char c : key) {
    if (c == '~')
      pointer += "~0";
    else if (c == '/')
      pointer += "~1";
    else
      pointer += c;
  }
  return pointer;
}

tl::expected<YamlDocument, Problem> parse_yaml(std::string_view text, const std::string& source) {
  const auto refuse = [&](const YAML::Mark& mark, std::string what) {
    return tl::unexpected(Problem{place_of(mark, text, source), std::move(what)});
  };
  if (text.size() > kMaxConfigBytes)
    return refuse({}, fmt::format("larger than {} KiB", kMaxConfigBytes / 1024));
  if (text.starts_with("\xef\xbb\xbf")) text.remove_prefix(3);
  if (const auto bad = forbidden_byte(text)) return refuse(mark_at(text, bad->first), bad->second);

  std::istringstream stream{std::string(text)};
  Builder builder(text, source);
  try {
    YAML::Parser parser(stream);
    while (parser.HandleNextDocument(builder)) {
    }
  } catch (const Refusal& refusal) {
    return refuse(refusal.mark, refusal.text);
  } catch (const YAML::Exception& error) {
    if (const auto tab = tab_in_indentation(text, error.mark))
      return refuse(*tab, "a tab in the indentation; YAML wants spaces");
    return refuse(error.mark, in_plain_words(error.msg));
  }
  if (!builder.found()) {  // the parser sends nothing for a text without content
    builder.document.nodes[""] = {{source, 1, 1}, {source, 1, 1}, ""};
  }
  return std::move(builder.document);
}

std::optional<Problem> override_value(YamlDocument& document, const std::string& assignment,
                                      bool (*is_free_map)(const std::string& pointer)) {
  const size_t equals = assignment.find('=');
  if (equals == 0 || equals == std::string::npos)  // what was typed may be a secret and is not repeated
    return Problem{{"--set"}, "expected KEY=VALUE, such as run.env.LR=1e-4"};
  const std::string key = assignment.substr(0, equals);
  const Place place{"--set " + key};
  auto value = parse_yaml(std::string_view(assignment).substr(equals + 1), place.source);
  if (!value) return Problem{place, value.error().text};

  Json* at = &document.json;
  std::string pointer;
  std::string_view rest = key;
  while (!rest.empty()) {
    if (at->is_null()) *at = Json::object();
    if (!at->is_object()) {
      const std::string parent = key.substr(0, key.size() - rest.size());
      return Problem{place,
                     fmt::format("what stands at '{}' is no map", parent.substr(0, parent.size() - 1))};
    }
    document.nodes.try_emplace(pointer, YamlNode{place, place, ""});
    const std::string name(rest.substr(0, is_free_map(pointer) ? rest.size() : rest.find('.')));
    if (name.empty() || rest == name + ".") return Problem{place, "a dot with nothing beside it"};
    rest.remove_prefix(std::min(name.size() + 1, rest.size()));
    pointer = child_pointer(pointer, name);
    at = &(*at)[name];
  }
  std::erase_if(document.nodes, [&](const auto& node) {
    return node.first == pointer || node.first.starts_with(pointer + "/");
  });
  *at = std::move(value->json);
  for (auto& [below, node] : value->nodes) {
    node.place = node.key_place = place;
    document.nodes[pointer + below] = std::move(node);
  }
  return std::nullopt;
}

}  // namespace bitctl
