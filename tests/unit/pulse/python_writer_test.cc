// The real Python writer and the C++ reader, over real files.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/wait.h>

#include <cstdlib>

#include "base/clock.h"
#include "base/install_layout.h"
#include "pulse/read.h"
#include "unit/schema_check.h"
#include "unit/temporary_folder.h"

namespace bitctl {
namespace {

class PythonWriter : public testing::Test {
 protected:
  // Runs a script that has the package and `path`; its exit code.
  int python(const std::string& script) {
    const std::string file = folder_.write("script.py", "import sys\nsys.path.insert(0, '" BITCTL_SOURCE_DIR
                                                        "/python')\n"
                                                        "from bitctl.pulse import *\n"
                                                        "from bitctl import pulse\n"
                                                        "path = '" +
                                                            path_ + "'\n" + script);
    const std::string command =
        find_python(BITCTL_SOURCE_DIR).value() + " " + file + " 2>" + (folder_ / "stderr");
    const int status = std::system(command.c_str());
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  }

  PulseStatus read() {
    EXPECT_EQ(schema_complaints("pulse.v1", read_text(path_)), "");
    const PulseRead read = read_pulse(path_);
    const auto* good = std::get_if<PulseGood>(&read);
    EXPECT_TRUE(good);
    return good ? good->status : PulseStatus{};
  }

  TemporaryFolder folder_;
  std::string path_ = folder_ / "training_status.json";
};

TEST_F(PythonWriter, test_idle_to_running_to_done) {
  ASSERT_EQ(python("write_idle_status(path)"), 0);
  EXPECT_EQ(read().status, TrainingState::idle);
  EXPECT_EQ(read().message, "Waiting to start...");

  ASSERT_EQ(python("write_running_status(path, 1.0, 3.0, 0.5, 'epoch 1/3')"), 0);
  PulseStatus status = read();
  EXPECT_EQ(status.status, TrainingState::running);
  EXPECT_EQ(status.epoch, 1.0);
  EXPECT_EQ(status.total_epochs, 3.0);
  EXPECT_EQ(status.message, "epoch 1/3");
  EXPECT_FALSE(is_stale(status, unix_seconds(system_clock().wall())));

  ASSERT_EQ(python("write_running_status(path, 2.0, 3.0, 0.3, 'epoch 2/3')"), 0);
  EXPECT_EQ(read().epoch, 2.0);
  EXPECT_EQ(read().loss, 0.3);

  ASSERT_EQ(python("write_done_status(path, 3.0, 3.0, 0.1, 'Training complete')"), 0);
  status = read();
  EXPECT_EQ(status.status, TrainingState::done);
  EXPECT_EQ(progress_percent(status), 100);
  EXPECT_EQ(status.message, "Training complete");
}

TEST_F(PythonWriter, test_stale_detection) {
  ASSERT_EQ(python("pulse.time.time = lambda now=pulse.time.time(): now - 70\n"
                   "write_running_status(path, 1.0, 3.0, 0.5, 'epoch 1/3')"),
            0);
  const PulseStatus status = read();
  ASSERT_TRUE(is_stale(status, unix_seconds(system_clock().wall())));
  const PulseStatus stale = as_stale(status);
  EXPECT_EQ(stale.status, TrainingState::error);
  EXPECT_THAT(stale.message, testing::HasSubstr("unresponsive"));
  EXPECT_EQ(stale.epoch, 1.0);
  EXPECT_EQ(stale.timestamp, status.timestamp);
}

TEST_F(PythonWriter, AMemoryErrorIsAnErrorThatKeepsEpochAndLoss) {
  EXPECT_EQ(python("with Pulse(path, 3) as p:\n"
                   "    p.update(1.0, 0.5, 'epoch 1/3')\n"
                   "    p.update(1.5, 0.25, 'epoch 2/3, step 150/800')\n"
                   "    raise MemoryError('CUDA out of memory')\n"),
            1);
  const PulseStatus status = read();
  EXPECT_EQ(status.status, TrainingState::error);
  EXPECT_EQ(status.epoch, 1.5);
  EXPECT_EQ(status.loss, 0.25);
  EXPECT_EQ(progress_percent(status), 50);
  EXPECT_EQ(status.message, "MemoryError: CUDA out of memory");
  EXPECT_THAT(read_text(folder_ / "stderr"), testing::HasSubstr("MemoryError: CUDA out of memory"));
}

TEST_F(PythonWriter, WritesTheSameBytesAsWeDo) {
  for (const auto& [python_loss, loss] : {std::pair{"0.342", 0.342},
                                          {"1", 1.0},
                                          {"1e-7", 1e-7},
                                          {"-1e300", -1e300},
                                          {"5e-324", 5e-324},
                                          {"123456.789", 123456.789}}) {
    ASSERT_EQ(python("pulse.time.time = lambda: 1732800000.9\n"
                     "write_running_status(path, 1.5, 3, " +
                     std::string(python_loss) + ", '\\u00fc\\u65e5 \\\"\\\\\\n\\x1b\\x7f/')"),
              0);
    EXPECT_EQ(read_text(path_),
              to_file_bytes({TrainingState::running, 1.5, 3, loss, "ü日 \"\\\n\x1b\x7f/", 1732800000}));
  }
}

}  // namespace
}  // namespace bitctl
