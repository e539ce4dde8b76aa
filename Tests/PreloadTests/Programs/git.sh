# git: a repository with history, branches, a clone, gc, log, diff and grep.
export HOME=$PWD GIT_AUTHOR_DATE='2020-01-01T00:00:00Z' GIT_COMMITTER_DATE='2020-01-01T00:00:00Z'
export GIT_AUTHOR_NAME=a GIT_AUTHOR_EMAIL=a@example.org GIT_COMMITTER_NAME=a GIT_COMMITTER_EMAIL=a@example.org
git init -q -b main one && cd one
for i in $(seq 1 12); do
  seq 1 $((i * 400)) > numbers; seq $i 3 5000 > "file$i"; git add -A; git commit -qm "commit $i"
done
git checkout -qb side HEAD~4; echo side > side; git add side; git commit -qm side
git checkout -q main; git merge -q --no-edit side
git gc -q --aggressive --prune=now 2>/dev/null
cd ..; git clone -q --no-local one two; cd two
git log --oneline --stat | md5sum
git diff HEAD~8 | md5sum
git grep -c 99 | sort | md5sum
git fsck --full 2>/dev/null; git rev-parse HEAD
git blame numbers | md5sum
