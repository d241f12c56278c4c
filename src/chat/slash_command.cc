#include "chat/slash_command.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <vector>

#include "base/text.h"

namespace bitctl {
namespace {

using Kind = SlashCommand::Kind;

enum class Argument { none, may, must };

struct Known {
  std::string_view name;
  Kind kind;
  Argument argument;
  std::string_view usage;  // the argument's name
  std::string_view help;
};

constexpr std::array kCommands{
    Known{"/help", Kind::help, Argument::none, "", "this text"},
    Known{"/status", Kind::status, Argument::none, "", "state, decoder, sampling, conversation"},
    Known{"/model", Kind::model, Argument::must, "PATH",
          "talk to another model: a file, a folder, a run, a name"},
    Known{"/latest", Kind::latest, Argument::none, "", "take the newest checkpoint of the run that answers"},
    Known{"/retry", Kind::retry, Argument::none, "", "load again after a failure"},
    Known{"/system", Kind::system, Argument::may, "[TEXT]",
          "the system prompt from here on; without TEXT: none"},
    Known{"/set", Kind::set, Argument::must, "KEY=VALUE …", "how answers are sampled; VALUE may be default"},
    Known{"/seed", Kind::seed, Argument::may, "[N]", "the seed from here on; without N: a new one"},
    Known{"/show", Kind::show, Argument::may, "[params|prompt|template]", "what the model is given"},
    Known{"/regen", Kind::regen, Argument::none, "",
          "answer the last prompt again; the same seed says the same"},
    Known{"/compare", Kind::compare, Argument::must, "A B",
          "answer the last prompt by two models or steps, side by side"},
    Known{"/undo", Kind::undo, Argument::none, "", "take back the last prompt and its answer"},
    Known{"/edit", Kind::edit, Argument::none, "", "take them back, and the prompt up again"},
    Known{"/read", Kind::read, Argument::must, "FILE", "put the file's text into the prompt"},
    Known{"/clear", Kind::clear, Argument::none, "", "begin a new conversation"},
    Known{"/save", Kind::save, Argument::may, "[FILE]",
          "write the conversation; without FILE: where it is kept"},
    Known{"/load", Kind::load, Argument::must, "FILE", "go on with a saved conversation"},
    Known{"/stats", Kind::stats, Argument::none, "", "times, rates and what is used of the context"},
    Known{"/send", Kind::send, Argument::none, "", "as a line of its own: send what stands above it"},
    Known{"/quit", Kind::quit, Argument::none, "", "leave"},
};

const Known* find(std::string_view name) {
  const auto* known = std::find_if(kCommands.begin(), kCommands.end(),
                                   [&](const Known& command) { return command.name == name; });
  return known == kCommands.end() ? nullptr : known;
}

std::string unknown_text(const std::string& word) {
  std::vector<std::string> names;
  for (const auto& command : kCommands) names.emplace_back(command.name);
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
  const std::string argument(text.substr(std::min(text.find_first_not_of(" \t\n", end), text.size())));
  const Known* command = find(word);
  if (command == nullptr) return {Kind::unknown, unknown_text(word)};
  if (command->argument == Argument::none && !argument.empty())
    return {Kind::unknown, fmt::format("{} takes no argument", word)};
  if (command->argument == Argument::must && argument.empty())
    return {Kind::unknown, fmt::format("{} needs an argument: {} {}", word, word, command->usage)};
  return {command->kind, argument};
}

std::string slash_command_help() {
  std::string help;
  for (const auto& command : kCommands)
    help += fmt::format("  {:<16} {}\n", fmt::format("{} {}", command.name, command.usage), command.help);
  return help + "  //x              sends the text /x";
}

}  // namespace bitctl
