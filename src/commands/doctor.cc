#include <algorithm>
#include <cstdio>

#include "base/exit_code.h"
#include "base/install_layout.h"
#include "base/strict_json.h"
#include "commands/commands.h"
#include "doctor/examine.h"

namespace bitctl {
namespace {

struct DoctorOptions {
  std::string folder = ".";
  bool json = false;
};

int doctor(const DoctorOptions& options) {
  const auto findings = examine(absolute_path(options.folder));
  for (const Finding& finding : findings) {
    const Json json = {{"check", finding.check},
                       {"verdict", name_of(finding.verdict)},
                       {"text", finding.text},
                       {"mend", finding.mend}};
    std::printf("%s\n", (options.json ? dump_line(json) : line_of(finding)).c_str());
  }
  const bool failed = std::any_of(findings.begin(), findings.end(), [](const Finding& finding) {
    return finding.verdict == Finding::Verdict::failure;
  });
  return failed ? kFailed : kOk;
}

}  // namespace

void add_doctor_command(CLI::App& app, Action& action) {
  auto options = std::make_shared<DoctorOptions>();
  CLI::App* command = app.add_subcommand(
      "doctor", "Is this machine fit for a training? One line a check; exit code 1 where one fails");
  command->add_option("PATH", options->folder, "A run, or the folder that trainings are started in");
  command->add_flag("--json", options->json, "One JSON object a line");
  command->callback([options, &action] { action = [options] { return after_output(doctor(*options)); }; });
}

}  // namespace bitctl
