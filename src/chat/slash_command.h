// What a sent text means: a prompt, or a command that begins with '/'. Pure.
#pragma once

#include <string>
#include <string_view>

namespace bitctl {

struct SlashCommand {
  enum class Kind { prompt, help, status, retry, system, clear, nothing, quit, unknown };
  Kind kind = Kind::prompt;
  // The prompt ("//x" is the prompt "/x"), the text behind /system, or why the command is not known.
  std::string text = {};

  bool operator==(const SlashCommand&) const = default;
};

SlashCommand interpret(std::string_view text);

std::string_view slash_command_help();

}  // namespace bitctl
