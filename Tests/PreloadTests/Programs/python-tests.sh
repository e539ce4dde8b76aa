# python3's own tests of some twenty modules. PYTHON names the interpreter.
# The test left out fails where a site package imports threading at the start.
export HOME=$PWD TMPDIR=$PWD
$PYTHON -m test -q -w --timeout 300 -i test_import_from_another_thread test_bytes test_dict test_list test_set test_json test_re test_struct test_threading \
  test_thread test_gc test_weakref test_zlib test_bz2 test_collections test_array test_itertools test_functools \
  test_heapq test_pickle test_ctypes test_mmap test_unicode > log 2>&1
code=$?
[ $code = 0 ] || tail -60 log
exit $code
