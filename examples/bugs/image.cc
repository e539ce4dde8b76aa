// image.cc: an image that can be copied, but not twice destroyed.
#include <cstdio>
#include <cstring>

class Image {
 public:
  explicit Image(size_t size) : size_(size), pixels_(new char[size]) { memset(pixels_, 0, size); }
#ifdef FIXED
  Image(const Image &other) : Image(other.size_) { memcpy(pixels_, other.pixels_, size_); }
#endif
  ~Image() { delete[] pixels_; }
  size_t size() const { return size_; }

 private:
  size_t size_;
  char *pixels_;
};

static size_t bytes(Image image) { return image.size(); }

int main() {
  Image image(640 * 480);
  printf("%zu bytes\n", bytes(image));
  return 0;
}
