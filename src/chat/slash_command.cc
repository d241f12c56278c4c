#include "chat/slash_command.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <vector>

#include "base/text.h"

namespace bitctl {
namespace {

using Kind = SlashCommand::Kind;

constexpr std::array<std::pair<std::string_view, Kind>, 7> kCommands{{{"/help", Kind::help},
                                                                      {"/status", Kind::status},
                                                                      {"/retry", Kind::retry},
                                                                      {"/system", Kind::system},
                                                                      {"/clear", Kind::clear},
                                                                      {"/send", Kind::nothing},
                                                                      {"/quit", Kind::quit}}};

std::string unknown_text(const std::string& word) {
  std::vector<std::string> names;
  for (const auto& [name, kind] : kCommands) names.emplace_back(name);
  const auto near = nearest_word(word, names);
  return near ? fmt::format("unknown command {}; did you mean {}?", word, *near)
              : fmt::format("unknown command {}; /help lists them, /{} sends it as text", word, word);
}

}  // namespace

SlashCommand interpret(std::string_view text) {
  if (!text.starts_with('/')) return {Kind::prompt, std::string(text)};
  if (text.starts_with("//")) return {Kind::prompt, std::string(text.substr(1))};
  const size_t end = std::min(text.find_first_of(" \t\n"), text.size());
  const std::string word(text.substr(0, end));
  const size_t argument = std::min(text.find_first_not_of(" \t\n", end), text.size());
  const auto* command = std::find_if(kCommands.begin(), kCommands.end(),
                                     [&](const auto& known) { return known.first == word; });
  if (command == kCommands.end()) return {Kind::unknown, unknown_text(word)};
  if (command->second == Kind::system) return {Kind::system, std::string(text.substr(argument))};
  if (argument < text.size()) return {Kind::unknown, fmt::format("{} takes no argument", word)};
  return {command->second};
}

std::string_view slash_command_help() {
  return "Enter breaks the line. Ctrl+Enter (where the terminal tells it from Enter), Alt+Enter, Ctrl+J, "
         "Ctrl+D behind\n"
         "a text, or a line that is just /send sends. Ctrl+C stops the answer. Ctrl+D on an empty line "
         "leaves.\n"
         "  /help          this text\n"
         "  /status        state, decoder, sampling, conversation\n"
         "  /retry         load again after a failure\n"
         "  /system TEXT   the system prompt from here on; without TEXT: none\n"
         "  /clear         begin a new conversation\n"
         "  /quit          leave\n"
         "  //x            sends the text /x";
}

}  // namespace bitctl
