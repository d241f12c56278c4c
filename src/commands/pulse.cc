#include <fmt/format.h>
#include <fmt/ranges.h>

#include <cstdio>
#include <memory>

#include "base/exit_code.h"
#include "base/visible_text.h"
#include "commands/commands.h"
#include "pulse/read.h"

namespace bitctl {
namespace {

int check(const std::string& path) {
  const PulseRead read = read_pulse(path);
  if (const auto* damaged = std::get_if<PulseDamaged>(&read))
    return complain({ErrorKind::damaged, damage_text(*damaged)}, kFailed);
  const auto* good = std::get_if<PulseGood>(&read);
  if (!good) return complain({ErrorKind::not_found, path + ": no such file"}, kFailed);
  if (!good->unknown_keys.empty())
    return complain({ErrorKind::damaged,
                     fmt::format("{}: PULSE v1 has no key {}", path, fmt::join(good->unknown_keys, ", "))},
                    kFailed);
  fmt::print("{}: good: {}, epoch {} of {}\n", visible_text(path), state_name(good->status.status),
             good->status.epoch, good->status.total_epochs);
  return kOk;
}

}  // namespace

void add_pulse_command(CLI::App& app, Action& action) {
  CLI::App* pulse = app.add_subcommand("pulse", "Works on PULSE files (training_status.json)");
  pulse->require_subcommand(1);
  CLI::App* command = pulse->add_subcommand(
      "check", "Says whether a file is PULSE v1 to the letter: exit code 0 where it is, 1 where it is not");
  const auto path = std::make_shared<std::string>();
  command->add_option("FILE", *path, "a PULSE file of anybody")->required();
  command->callback([&action, path] { action = [path] { return after_output(check(*path)); }; });
}

}  // namespace bitctl
