# An ordinary Python program: text, dictionaries, classes, regular expressions, JSON.
import json
import re


class Account:
    def __init__(self, name, balance):
        self.name = name
        self.balance = balance
        self.history = []

    def move(self, amount):
        self.balance += amount
        self.history.append((amount, self.balance))


def main():
    accounts = {f"account {i}": Account(f"account {i}", i) for i in range(20_000)}
    names = list(accounts)
    for step in range(200_000):
        accounts[names[step * 7919 % len(names)]].move(step % 101 - 50)
    text = json.dumps([{"name": a.name, "balance": a.balance, "history": a.history[-5:]} for a in accounts.values()])
    words = re.findall(r"account (\d+)", text)
    back = json.loads(text)
    table = {}
    for row, word in zip(back, words):
        table.setdefault(row["balance"] % 997, []).append(word)
    print(len(text), sum(len(v) for v in table.values()), sum(r["balance"] for r in back))


main()
