// C++ thread_local objects whose destructors allocate and free, in threads that end
// by returning, by pthread_exit and by cancellation, and in the main thread.
#include "fixture.h"
#include <string>
#include <thread>
#include <vector>

struct Holder {
  std::vector<std::string> names;
  ~Holder() {
    for (int i = 0; i < 100; i++) names.push_back(std::string(50 + i * 37, 'y'));
    for (auto &name : names) CHECK(name.size() > 40);
    names.clear();
    names.shrink_to_fit();
  }
};
static thread_local Holder first, second;

static void use() {
  first.names.push_back(std::string(100, 'x'));
  second.names.assign(50, std::string(2000, 'z'));
}

int main() {
  for (int round = 0; round < 100; round++) {
    std::thread returns(use);
    returns.join();
    pthread_t exits;
    pthread_create(&exits, nullptr, [](void *) -> void * { use(); pthread_exit(nullptr); }, nullptr);
    pthread_join(exits, nullptr);
    pthread_t cancelled;
    pthread_create(&cancelled, nullptr, [](void *) -> void * { use(); pause(); return nullptr; }, nullptr);
    pthread_cancel(cancelled);
    pthread_join(cancelled, nullptr);
  }
  use();
  return ok();
}
