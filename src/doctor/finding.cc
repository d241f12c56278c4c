#include "doctor/finding.h"

#include <fmt/format.h>

#include <condition_variable>
#include <exception>
#include <mutex>
#include <thread>

#include "base/visible_text.h"

namespace bitctl {

std::string name_of(Finding::Verdict verdict) {
  switch (verdict) {
    case Finding::Verdict::ok:
      return "ok";
    case Finding::Verdict::warn:
      return "warn";
    case Finding::Verdict::failure:
      return "fail";
  }
  return "?";
}

std::string line_of(const Finding& finding) {
  return visible_text(fmt::format("{:<5} {:<11} {}{}", name_of(finding.verdict), finding.check, finding.text,
                                  finding.mend.empty() ? "" : "; " + finding.mend));
}

struct RunningChecks::Shared {
  std::mutex mutex;
  std::condition_variable changed;
  std::vector<Check> checks;
  std::vector<Finding> findings;
};

RunningChecks::RunningChecks(std::vector<Check> checks) : shared_(std::make_shared<Shared>()) {
  shared_->checks = std::move(checks);
  std::thread([shared = shared_] {
    for (const Check& check : shared->checks) {
      Finding finding;
      try {
        finding = check.run();
      } catch (const std::exception& error) {
        finding = {Finding::Verdict::failure, check.name, error.what(), ""};
      }
      const std::lock_guard lock(shared->mutex);
      shared->findings.push_back(std::move(finding));
      shared->changed.notify_all();
    }
  }).detach();
}

std::vector<Finding> RunningChecks::wait_until(Mono deadline) {
  std::unique_lock lock(shared_->mutex);
  const auto done = [&] { return shared_->findings.size() == shared_->checks.size(); };
  shared_->changed.wait_until(lock, deadline, done);
  std::vector<Finding> findings = shared_->findings;
  if (!done())
    findings.push_back({Finding::Verdict::failure, shared_->checks[findings.size()].name,
                        "no answer within seconds", "the disk or network below does not answer"});
  return findings;
}

}  // namespace bitctl
